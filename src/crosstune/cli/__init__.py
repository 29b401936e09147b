"""The command line: one function per verb, help and argument parsing.

The rest of the package is imported only inside a verb, so that help is instant.
"""

"""The command line: one function per verb, help and argument parsing.

A verb imports the rest of the package when it runs, so that help is printed at once.
"""

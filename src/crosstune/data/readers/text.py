"""Plain text: one paragraph a line."""

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split


def read_text(source: str, *, encoding: str = "utf-8") -> Split:
    """Read plain text (gzip allowed), one paragraph a line; blank lines part paragraphs.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    content, digest = read_file(source, encoding)
    rows = [
        {"id": str(number), "text": line.strip(), "where": f"{source}:{number}"}
        for number, line in lines_of(content)
        if line.strip()
    ]
    return Split(rows, {source: digest})

"""Write the generated parts of docs/reference: `python -m tests.reference`."""

from tests.reference import filled, pages

for path in pages():
    path.write_text(filled(path.read_text()))
    print(path)

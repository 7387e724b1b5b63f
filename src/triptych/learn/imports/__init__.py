"""Models from elsewhere: folders of other programs become bundles."""

from triptych.learn.imports.folder import Imported, import_folder

__all__ = ["Imported", "import_folder"]

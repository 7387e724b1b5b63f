"""The models a server offers, as their manifests describe them; needs no engine and no numpy."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from triptych.bundle.manifest import MANIFEST, GraphRecord, Manifest, TextSampler
from triptych.bundle.reader import read, read_manifest
from triptych.errors import ConfigError, NotFoundError, nearest


class Model:
    """One bundle on offer."""

    def __init__(self, folder: Path, manifest: Manifest, created_at_s: int) -> None:
        self.folder, self.manifest = folder, manifest
        self.name, self.version = manifest.name, manifest.version
        self.graphs: dict[str, GraphRecord] = {graph.name: graph for graph in manifest.graphs}
        self.created_at_s = created_at_s
        self.is_text = isinstance(manifest.sampler, TextSampler)

    @cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer of this model says about its origin."""
        return [(b"triptych-model", self.name.encode()), (b"triptych-version", self.version.encode())]

    def graph(self, name: str) -> GraphRecord:
        """The graph of that name.

        Raises: NotFoundError with the nearest name.
        """
        if name not in self.graphs:
            raise NotFoundError(
                f"model `{self.name}` has no graph `{name}`",
                where="graph",
                valid=", ".join(self.graphs),
                remedy=nearest(name, self.graphs),
            )
        return self.graphs[name]


class Catalog(dict[str, Model]):
    """Models by name."""

    @classmethod
    def read(cls, folders: Iterable[str | Path]) -> Catalog:
        """The bundles in `folders`; only their manifests are read.

        Raises: BundleError for an unreadable one, ConfigError if two have one name.
        """
        catalog = cls()
        for folder in map(Path, folders):
            model = Model(folder, read_manifest(folder), int((folder / MANIFEST).stat().st_mtime))
            if model.name in catalog:
                raise ConfigError(
                    f"has the name `{model.name}`, and so has {catalog[model.name].folder}",
                    where=str(folder),
                    valid="bundles of different names",
                )
            catalog[model.name] = model
        return catalog

    @classmethod
    def checked(cls, folders: Iterable[str | Path]) -> Catalog:
        """The same, with every byte of every bundle checked."""
        found = list(folders)
        for folder in found:
            read(folder)
        return cls.read(found)

    def find(self, name: str) -> Model:
        """The model of that name, to be asked something now.

        Raises: NotFoundError with the nearest name.
        """
        return self.known(name)

    def known(self, name: str) -> Model:
        """The model of that name, whether or not it could be asked something now.

        Raises: NotFoundError with the nearest name.
        """
        if name not in self:
            raise NotFoundError(
                f"there is no model `{name}`",
                where="model",
                valid=", ".join(self),
                remedy=nearest(name, self),
            )
        return self[name]

"""People on disk with vectors, metadata and thumbnails: add, remove, search. Needs no torch to be imported."""

from tipr.gallery.gallery import Gallery
from tipr.gallery.info import GalleryInfo
from tipr.gallery.ingest import IngestReport, Skipped
from tipr.gallery.search import Hit

__all__ = ["Gallery", "GalleryInfo", "Hit", "IngestReport", "Skipped"]

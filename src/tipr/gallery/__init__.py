"""People on disk with vectors, metadata and thumbnails: add, search, erase. Needs no torch to be imported."""

from tipr.gallery.erase import Certificate
from tipr.gallery.gallery import Gallery
from tipr.gallery.info import GalleryInfo
from tipr.gallery.ingest import IngestReport, Skipped
from tipr.gallery.search import Hit
from tipr.gallery.selection import Candidates

__all__ = ["Candidates", "Certificate", "Gallery", "GalleryInfo", "Hit", "IngestReport", "Skipped"]

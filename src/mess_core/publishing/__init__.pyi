from .fetch import load_latest as load_latest, load_published as load_published
from .publish import (
    prune_versions as prune_versions,
    published_datasets as published_datasets,
    published_version as published_version,
    published_versions as published_versions,
    rollback as rollback,
    verify_published as verify_published,
)

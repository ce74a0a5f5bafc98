"""Index artifacts: built from features, saved under their content's hash, published, loaded."""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "artifact": ["load_artifact", "save_artifact", "verify_artifact"],
        "index": ["Index", "Row", "build_index"],
        "publishing": [
            "fetch",
            "load_latest",
            "load_published",
            "prune_versions",
            "publish",
            "publish_to_folder",
            "published_datasets",
            "published_version",
            "published_versions",
            "rollback",
            "verify_published",
        ],
        "s3": ["download_artifact_from_s3", "load_latest_from_s3", "upload_artifact_to_s3"],
        "transfer": ["Transfer"],
    },
)

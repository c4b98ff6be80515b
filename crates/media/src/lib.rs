//! Media: blobs, thumbnails, remote media.

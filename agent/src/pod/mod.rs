//! The pod of `namegate run` (to be written).

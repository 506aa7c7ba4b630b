//! Tests of ops that need images.

pub mod patch_embed;

//! Files of data sets: which files belong to a data set, and how their bytes and images are reached.

pub mod content;
pub(crate) mod declared;
pub mod folder;
pub mod paths;
pub mod shards;
pub(crate) mod splits;
pub(crate) mod stamp;
pub mod zipped;

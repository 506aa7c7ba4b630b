//! Golden tests of images and rewards.

pub mod eval_judge;
pub mod image;
pub mod image_torchvision;
pub mod judged;
pub mod reward;

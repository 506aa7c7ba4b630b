//! Text: tokenizer, chat template, and the two together as [`Chat`].
//!
//! Ids are those of Hugging Face to the bit. Text is encoded in one of two ways ([`Special`]): `Parse` reads special
//! tokens wherever their string stands, as Hugging Face does; `Plain` reads them only where the chat template wrote
//! them, so that no text of a user can open a turn or an image.

mod allowed;
mod bounded;
mod chat;
mod json;
mod row_prompt;
mod template;
mod tokenizer;
mod train;

pub use chat::{Chat, expand_images};
pub use json::repr;
pub use row_prompt::RowPrompt;
pub use template::{ChatTemplate, Message, Part};
pub use tokenizer::{Special, Tokenizer};
pub use train::{CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer, write_tokenizer_dir};

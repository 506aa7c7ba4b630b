//! Result of one pass over a task's rows: the questions with hashes of their contents, and their sizes. Only a few
//! bytes per question are stored. Rows and images are read again when they are needed.

use std::ops::ControlFlow;

use omr_base::error::{Error, Result};
use omr_data::rows::read::RowFile;
use omr_data::rows::{Encoder, Index, ReadCounts, Shape};
use omr_data::task::TaskRows;

/// Questions of a task.
#[derive(Default)]
pub struct Survey {
    /// Number of each question in the task.
    pub indices: Vec<u32>,
    /// Hash of each question, see [`omr_data::rows::Row::content`].
    pub contents: Vec<[u8; 32]>,
    /// Summary of the questions' contents.
    pub seen: ReadCounts,
    /// True for each question with a JPEG. Empty if no encoder was given, because a server decodes images itself.
    pub jpegs: Vec<bool>,
    /// Sizes of the prompts, if a model's encoder was given.
    pub index: Index,
    /// A warning about what the chat template writes before an answer, for the scorer.
    pub warning: Option<String>,
}

impl Survey {
    /// Reads the rows once. With an encoder and its maximum length, a prompt with more tokens is an error, because an
    /// evaluation must not leave out questions.
    pub fn of(rows: &TaskRows, encoder: Option<(&Encoder, usize)>) -> Result<Survey> {
        let mut survey = Survey::default();
        rows.each(|index, row| {
            // A row on which the published evaluation ends with an error is not asked.
            if let Ok(row) = row {
                if let Some((encoder, longest)) = encoder {
                    if survey.indices.is_empty() {
                        survey.warning = rows.scoring.check_prompt(&encoder.chat, &row)?;
                    }
                    let size = encoder.measure(&row)?;
                    if size.tokens > longest {
                        let expected = format!("a prompt within the model's context of {longest} tokens");
                        return Err(Error::input(&row.place, format!("{} tokens", size.tokens), expected));
                    }
                    survey.jpegs.push(size.has_jpeg);
                    survey.index.push(Shape { tokens: size.tokens, targets: 0, grids: &size.grids });
                }
                survey.seen.add(&row);
                survey.indices.push(index as u32);
                survey.contents.push(row.content()?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        survey.seen = survey.seen.with_columns(&RowFile::open(rows.source.datasets)?)?;
        survey.seen.check()?;
        Ok(survey)
    }
}

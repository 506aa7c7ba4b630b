//! What one pass over a task's rows shows: which questions there are, by content, and how large. Some bytes a question
//! are kept; rows and pictures are read again as they are needed.

use std::ops::ControlFlow;

use crate::data::index::{Index, Shape};
use crate::data::{Encoder, Seen};
use crate::error::{Error, Result};
use crate::task::{Crash, TaskRows};

/// A task's questions.
#[derive(Default)]
pub struct Survey {
    /// The number of each in the task.
    pub indices: Vec<u32>,
    /// What each asks; see [`crate::data::Row::content`].
    pub contents: Vec<[u8; 32]>,
    /// Rows that the published evaluation ends with an error on: they are not asked.
    pub crashed: Vec<(u64, Crash)>,
    /// What the questions hold.
    pub seen: Seen,
    /// Sizes of the prompts, where a model's encoder told them.
    pub index: Index,
}

impl Survey {
    /// Reads the rows once. With an encoder, prompts of more tokens than its `longest` are an error: nothing is left out
    /// of a measurement.
    pub fn of(rows: &TaskRows, encoder: Option<(&Encoder, usize)>) -> Result<Survey> {
        let mut survey = Survey::default();
        rows.each(|index, row| {
            match row {
                Ok(row) => {
                    if let Some((encoder, longest)) = encoder {
                        let size = encoder.measure(&row)?;
                        if size.tokens > longest {
                            let expected = format!("prompts within the model's context, which is {longest}");
                            return Err(Error::input(&row.place, format!("{} tokens", size.tokens), expected));
                        }
                        survey.index.push(Shape { tokens: size.tokens, targets: 0, grids: &size.grids });
                    }
                    survey.seen.add(&row);
                    survey.indices.push(index as u32);
                    survey.contents.push(row.content()?);
                }
                Err(crash) => survey.crashed.push((index, crash)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(survey)
    }

    /// Number of questions.
    pub fn questions(&self) -> usize {
        self.indices.len()
    }
}

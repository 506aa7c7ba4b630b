//! Converts rows of a data set into questions for the engine, which are all in memory.

use std::sync::Arc;

use omr_data::rows::index::{Index, Shape, grids};
use omr_data::rows::{Encoder, Row, prompt};
use omr_model::engine::Prompt;
use omr_model::nn::ModelConfig;
use omr_model::rollout::generate::Question;

/// Returns the questions of `rows`.
pub fn questions(rows: &[Row], encoder: &Encoder, config: &ModelConfig) -> Vec<Question> {
    let question = |row: &Row| {
        let prompt = prompt(row, &encoder.chat, encoder.processor.as_ref()).unwrap();
        let prompt = Arc::new(Prompt::new(config, &prompt.ids, &prompt.images).unwrap());
        Question { row: row.clone(), prompt }
    };
    rows.iter().map(question).collect()
}

/// Returns the index of the questions, which holds their sizes.
pub fn index(questions: &[Question]) -> Index {
    let mut index = Index::default();
    for question in questions {
        let prompt = &question.prompt;
        index.push(Shape { tokens: prompt.token_ids.len(), targets: 0, grids: &grids(&prompt.pixels) });
    }
    index
}

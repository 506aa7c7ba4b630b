//! Writes the prompts of tasks for `--dump-prompts`: one line per question, with hashes of the images. A question is
//! dropped from memory after it is written.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use omr_base::config::ImageAlpha;
use omr_base::error::{Error, Result};
use omr_base::files::Output;
use omr_data::rows::Row;
use omr_data::task::{Crash, Source, TaskQuestion, TaskSpec};
use omr_data::text::Part;

/// Writes the first `limit` questions of each task to `to`. A row without a valid prompt is written with
/// its error. Returns the number of lines.
pub fn dump(to: &Output, tasks: &[&'static TaskSpec], source: &Source, limit: Option<usize>) -> Result<usize> {
    let mut lines = 0;
    to.write_with(|out| {
        for spec in tasks {
            let mut left = limit.unwrap_or(usize::MAX);
            spec.questions(source, &mut |task_question| {
                let line = line(spec, &task_question)?;
                writeln!(out, "{line}").map_err(Error::io("--dump-prompts"))?;
                (left, lines) = (left - 1, lines + 1);
                Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(())
    })?;
    Ok(lines)
}

fn line(spec: &TaskSpec, task_question: &TaskQuestion) -> Result<Value> {
    let TaskQuestion { index, place, row } = task_question;
    let row = match row {
        Ok(row) => row,
        Err(Crash { stage, class, found, expected }) => {
            let error = json!({"stage": stage.name(), "type": class, "found": found, "expected": expected});
            return Ok(json!({"task": spec.name, "index": index, "place": place, "error": error}));
        }
    };
    let truth = row.ground_truth.as_deref();
    Ok(json!({
        "task": spec.name,
        "index": index,
        "messages": messages(row),
        "images": row.images.iter().map(|source| image(row, source)).collect::<Result<Vec<Value>>>()?,
        "target": row.extra.get("target").cloned().unwrap_or_else(|| json!(truth)),
        "scored_ground_truth": truth,
        "judge_question": row.extra.get("judge_question").cloned().unwrap_or_else(|| json!(row.question())),
    }))
}

fn messages(row: &Row) -> Vec<Value> {
    let mut image = 0;
    let mut part = |part: &Part| match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image => {
            image += 1;
            json!({"type": "image", "image": image - 1})
        }
        Part::Video { frames, fps } => {
            image += frames;
            json!({"type": "video", "video": (image - frames..image).collect::<Vec<usize>>(), "fps": fps})
        }
    };
    let message = |m: &omr_data::text::Message| {
        let parts: Vec<Value> = m.content.iter().map(&mut part).collect();
        json!({"role": m.role, "parts": parts})
    };
    row.prompt().iter().map(message).collect()
}

/// Returns the size of an image and the hash of its pixels in row-major order, as the model's processor receives them.
fn image(row: &Row, image: &omr_data::rows::ImageSource) -> Result<Value> {
    image.decode_then(&row.place, ImageAlpha::Drop, |_, pixels| {
        let hash: String = Sha256::digest(&pixels.data).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"width": pixels.width, "height": pixels.height, "mode": "RGB", "rgb_sha256": hash})
    })
}

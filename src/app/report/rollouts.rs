//! The browser of an RL run's rollouts, by step and group. Each rollout has its image, its text, its scores and the
//! log-prob of each token.

use std::path::Path;

use super::browser::{Answer, Browser, Row, Verdict, thumbnail};
use omr_base::config::RlConfig;
use omr_base::error::Result;
use omr_base::files;
use omr_data::reward;
use omr_data::text::Tokenizer;
use omr_model::rollout::file::{self, RolloutRow};

/// Maximum number of steps on the page.
const STEPS: usize = 8;

/// Maximum number of bytes in a page of responses and images together.
const BYTES: usize = 4 << 20;

/// Returns the browser of the run in `dir`. Returns `None` if the run has written no rollouts, or if an older version
/// wrote them.
pub fn browser(dir: &Path, config: &RlConfig, choose: Choose) -> Result<Option<Browser>> {
    let recorded = steps(dir)?;
    let chosen = choose(&recorded, STEPS);
    let mut groups: Vec<(u64, Vec<RolloutRow>)> = Vec::new();
    for &step in &chosen {
        if let Ok(Some(rows)) = file::read(dir, step) {
            groups.extend(telling(&rows).into_iter().map(|group| (step, group)));
        }
    }
    if groups.is_empty() {
        return Ok(None);
    }
    let model = config.model.as_deref().unwrap_or(Path::new(""));
    let tokenizer = Tokenizer::load(dir.join("model")).or_else(|_| Tokenizer::load(model)).ok();
    let (mut bytes, mut rows) = (0, Vec::new());
    let count = groups.len();
    for (step, group) in groups {
        let Some(first) = group.first() else { continue };
        // Files of older versions contain only the rendered prompt.
        let text = if first.question.is_empty() { &first.input } else { &first.question };
        let answers: Vec<Answer> = group.iter().map(|r| answer(r, text, config, tokenizer.as_ref())).collect();
        let images: Vec<String> = first.images.iter().filter_map(|image| thumbnail(image)).collect();
        bytes += group.iter().map(|r| r.output.len() + 24 * r.token_ids.len()).sum::<usize>();
        bytes += images.iter().map(String::len).sum::<usize>();
        if bytes > BYTES && !rows.is_empty() {
            break;
        }
        let right = group.iter().filter(|r| r.acc_score.is_some_and(|acc| acc >= 0.5)).count();
        rows.push(Row {
            id: format!("step {step}, {}", first.id),
            question: text.clone(),
            images,
            gold: Some(first.gts.clone()),
            answers,
            facets: vec![("step".to_owned(), format!("{step:>6}"))],
            facts: vec![("right".to_owned(), format!("{right} of {}", group.len()))],
        });
    }
    let note = format!(
        "{} of {count} groups of steps {}. Groups with different rewards come first, because only they affect an \
         update. The run contains rollouts of {} steps. Dark tokens had a low probability.",
        rows.len(),
        chosen.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        recorded.len()
    );
    Ok(Some(Browser { title: "Rollouts".to_owned(), note, rows }))
}

/// Returns the steps with rollouts, in ascending order.
fn steps(dir: &Path) -> Result<Vec<u64>> {
    let folder = dir.join("rollouts");
    let entries = if folder.exists() { files::entries(&folder)? } else { Vec::new() };
    let mut steps: Vec<u64> = entries.iter().filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Selects at most the given number of steps.
pub type Choose = fn(&[u64], usize) -> Vec<u64>;

/// Selects the newest steps, the newest first.
pub fn newest(steps: &[u64], most: usize) -> Vec<u64> {
    steps.iter().rev().take(most).copied().collect()
}

/// Selects at most `most` of `steps`, evenly spaced, including the first and the last.
pub fn spread(steps: &[u64], most: usize) -> Vec<u64> {
    if steps.len() <= most {
        return steps.to_vec();
    }
    (0..most).map(|i| steps[i * (steps.len() - 1) / (most - 1)]).collect()
}

/// Returns the groups of a step that are shown.
fn telling(rows: &[RolloutRow]) -> Vec<Vec<RolloutRow>> {
    let groups: Vec<&[RolloutRow]> = rows.chunk_by(|a, b| a.prompt == b.prompt).collect();
    let rewards: Vec<Vec<f64>> =
        groups.iter().map(|group| group.iter().filter_map(|row| row.reward).collect()).collect();
    file::shown_groups(&rewards).into_iter().map(|i| groups[i].to_vec()).collect()
}

fn answer(row: &RolloutRow, question: &str, config: &RlConfig, tokenizer: Option<&Tokenizer>) -> Answer {
    let verdict = match row.acc_score {
        None => Verdict::Unjudged,
        _ if row.judge == "unjudged" => Verdict::Unjudged,
        Some(0.5..) => Verdict::Right,
        _ => Verdict::Wrong,
    };
    let rules = reward::score(&row.output, &row.gts, Some(question), config.reward.scorer.rubric(config.reward.mode));
    let by = match row.judge.as_str() {
        "" if !config.reward.scorer.command.is_empty() => "by the reward program".to_owned(),
        "" if Some(rules.acc_score) != row.acc_score => "by the rule or the program of its reward type".to_owned(),
        "" => rules.why.into_owned(),
        word => format!("judge: {word}"),
    };
    let RolloutRow { reward, advantage, predict_str, .. } = row;
    let reward = reward.map_or("none".to_owned(), |reward| format!("{reward:.3}"));
    let why = format!("reward {reward}, advantage {advantage:+.2}; extracted answer: {predict_str:?}; {by}");
    let whole = Answer::of(format!("rollout {}", row.rollout), &row.output);
    Answer {
        verdict: Some(verdict),
        why,
        tokens: Some(row.token_ids.len()),
        shades: tokenizer.map_or(Vec::new(), |tokenizer| shades(row, tokenizer)),
        ..whole
    }
}

/// Returns the text of each token with its log-prob, rounded to one decimal place to keep the page small.
fn shades(row: &RolloutRow, tokenizer: &Tokenizer) -> Vec<(String, f32)> {
    let mut stream = tokenizer.decode_stream(false);
    let pairs = row.token_ids.iter().zip(&row.log_probs);
    pairs.map(|(&id, &p)| (stream.push(tokenizer, id), (p * 10.0).round() / 10.0)).collect()
}

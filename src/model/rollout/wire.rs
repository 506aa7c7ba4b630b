//! Binary format in which a rank sends its rollouts to the other ranks: a line of JSON per rollout, then its tokens and
//! log-probs as raw bytes.

use serde::{Deserialize, Serialize};

use super::Rollout;
use super::journal::JournalVerdict;
use crate::engine::{CompletionOutput, FinishReason};
use omr_base::error::{Error, Result};
use omr_data::reward::Score;
use omr_runtime::ranks::{self, Ranks};

/// Bytes per response token in host memory: its id, its log-prob, and its text with an assumed four letters.
pub const BYTES_A_TOKEN: usize = 12;

#[derive(Serialize, Deserialize)]
struct Head {
    question: usize,
    rollout: usize,
    finish_reason: FinishReason,
    tokens: usize,
    response: String,
    score: Score,
    judge: JournalVerdict,
    sampled_with: Option<String>,
}

/// Encodes rollouts as bytes.
pub fn pack(rollouts: &[Rollout]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for rollout in rollouts {
        let Rollout { question, output, response, score, judge, sampled_with } = rollout;
        let head = Head {
            question: *question,
            rollout: output.index,
            finish_reason: output.finish_reason,
            tokens: output.token_ids.len(),
            response: response.clone(),
            score: score.clone(),
            judge: judge.as_ref().into(),
            sampled_with: sampled_with.clone(),
        };
        serde_json::to_writer(&mut out, &head).map_err(broken)?;
        out.push(b'\n');
        output.token_ids.iter().for_each(|id| out.extend(id.to_le_bytes()));
        output.logprobs.iter().for_each(|p| out.extend(p.to_le_bytes()));
    }
    Ok(out)
}

/// Decodes rollouts that [`pack`] encoded. Returns an error for invalid bytes.
pub fn unpack(mut bytes: &[u8]) -> Result<Vec<Rollout>> {
    let mut rollouts = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
        let head: Head = serde_json::from_slice(&bytes[..end]).map_err(broken)?;
        let words = bytes.get(end + 1..end + 1 + 8 * head.tokens).ok_or_else(|| cut(&head))?;
        bytes = &bytes[end + 1 + words.len()..];
        let (ids, logprobs) = words.split_at(4 * head.tokens);
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let output = CompletionOutput {
            request: head.question,
            index: head.rollout,
            token_ids: ids.chunks(4).map(word).collect(),
            logprobs: logprobs.chunks(4).map(|bytes| f32::from_bits(word(bytes))).collect(),
            finish_reason: head.finish_reason,
        };
        let Head { question, response, score, judge, sampled_with, .. } = head;
        let judge = judge.into();
        rollouts.push(Rollout { question, output, response, score, judge, sampled_with });
    }
    Ok(rollouts)
}

/// Gathers the rollouts of all ranks. Question i was assigned to rank i mod R, where R is the number of ranks. `own`
/// contains the rollouts of this rank's questions. Returns `count` rollouts in the order of questions and rollouts. If
/// any rank was asked to stop, every rank returns [`Error::Stopped`].
pub fn gathered(ranks: &mut dyn Ranks, own: Result<Vec<Rollout>>, count: usize) -> Result<Vec<Rollout>> {
    let mut own = ranks::agreed_at_last(ranks, "the end of rollouts", own)?;
    let (rank, size) = (ranks.rank(), ranks.size());
    if size == 1 {
        return Ok(own);
    }
    own.iter_mut().for_each(|rollout| rollout.question = rollout.question * size + rank);
    let all = ranks.gather("rollouts", &pack(&own)?)?;
    let all = all.iter().map(|bytes| unpack(bytes)).collect::<Result<Vec<_>>>()?;
    let mut all: Vec<Rollout> = all.into_iter().flatten().collect();
    all.sort_by_key(|rollout| (rollout.question, rollout.output.index));
    match all.len() == count {
        true => Ok(all),
        false => Err(Error::Failed(format!(
            "the ranks have {} rollouts of {count}: they generated rollouts for different prompts",
            all.len()
        ))),
    }
}

fn broken(error: serde_json::Error) -> Error {
    Error::Failed(format!("the rollouts of a rank: {error}"))
}

fn cut(head: &Head) -> Error {
    Error::Failed(format!(
        "the rollouts of a rank: the message ends inside a rollout of {} tokens with finish reason {:?}",
        head.tokens,
        head.finish_reason.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_data::reward::judge::Ruling;

    #[test]
    fn what_is_packed_comes_out_to_the_bit_and_cut_bytes_are_refused() {
        let rollout = |question, n: u32, judge: Option<Ruling>| Rollout {
            question,
            output: CompletionOutput {
                request: question,
                index: n as usize,
                token_ids: (10..10 + n).collect(),
                logprobs: (0..n).map(|i| f32::from_bits(0xbf80_0000 + i)).collect(),
                finish_reason: FinishReason::Length,
            },
            response: "a\nb \u{1f600}".to_owned(),
            score: Score {
                score: judge.is_none().then_some(0.1 + 0.2),
                acc_score: 1.0,
                format_reward_score: 0.0,
                predict_str: "x".to_owned(),
                why: "equal numbers".into(),
                further: [("brevity".to_owned(), 0.1 + 0.2)].into(),
            },
            judge,
            sampled_with: (question == 4).then(|| "cuda mma.sync/2".to_owned()),
        };
        let rollouts = [rollout(3, 0, None), rollout(4, 10, Some(Ruling::Said(1))), rollout(5, 1, None)];
        let bytes = pack(&rollouts).unwrap();
        assert_eq!(format!("{:?}", unpack(&bytes).unwrap()), format!("{rollouts:?}"));
        assert!(unpack(&bytes[..bytes.len() - 1]).is_err() && unpack(&bytes[1..]).is_err());
    }
}

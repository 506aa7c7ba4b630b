//! Scores of recorded judges.

use omr_base::error::Result;
use omr_data::reward::judge::{Inquiry, Reply, Request};
use omr_data::reward::{Judged, Mode};

/// Returns the score of a response in compat mode. `ask` gives the judge's replies.
pub fn judged(
    response: &str,
    truth: &str,
    question: Option<&str>,
    mut ask: impl FnMut(&Request<'_>) -> Result<Reply>,
) -> Result<Judged> {
    let score = omr_data::reward::score(response, truth, question, Mode::Compat);
    let mut inquiry = Inquiry::new(score, response, truth, question, Mode::Compat.into());
    while let Some(request) = inquiry.request() {
        let reply = ask(&request)?;
        inquiry.record_reply(&reply);
    }
    Ok(inquiry.judged())
}

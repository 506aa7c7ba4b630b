//! About what something is symmetric: "symmetric about the y-axis", "it has symmetry in the line x = 0".

use super::super::words::{self, tables::all_as};
use super::{Steps, equal};

/// An axis or a point of symmetry in notation.
fn about(text: &str) -> Option<String> {
    text.contains("ymmetr").then_some(())?;
    const KINDS: [&str; 5] = ["symmetric", "symmetrical", "symmetry", "reflectional symmetry", "line symmetry"];
    const JOINTS: [&str; 8] =
        [" with respect to ", " about ", " across ", " around ", " over ", " in ", " along ", " through "];
    if !text.to_lowercase().contains("symmetr") {
        return None;
    }
    let text = all_as(text.trim().trim_end_matches('.'), &["$", "\\(", "\\)"], "");
    let (head, axis) = JOINTS.iter().find_map(|j| text.split_once(j))?;
    let last = head.rsplit(' ').next()?.to_lowercase();
    if !KINDS.contains(&last.as_str()) || words::turned(head) {
        return None;
    }
    let axis = axis.trim();
    let axis = ["the line ", "the point ", "the ", "line ", "point "]
        .iter()
        .find_map(|a| axis.strip_prefix(a))
        .unwrap_or(axis);
    Some(match axis.replace(' ', "-").as_str() {
        "y-axis" | "vertical-axis" => "x=0".to_owned(),
        "x-axis" | "horizontal-axis" => "y=0".to_owned(),
        "origin" => "(0,0)".to_owned(),
        _ if axis.contains(['=', '(']) => axis.to_owned(),
        _ => return None,
    })
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (about(gold)?, about(answer)?);
    Some(equal(&a, &b, steps))
}

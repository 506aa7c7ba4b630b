//! Boxes and points in images, as lists of objects with `bbox_2d` or `point_2d`.

use super::kind::Details;
use super::literal::Literal;
use super::matching::best_matching;
use crate::Mode;

/// Smallest overlap of a box that is found: intersection divided by union.
const LEAST_OVERLAP: f64 = 0.5;

/// Vero's weights of the mean overlap of the boxes that are found, of F1, and of the shares of wrong and missing boxes.
const WEIGHTS: [f64; 3] = [1.0, 0.75, 0.5];

/// Kind of answer that a row asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Boxes, all of the label.
    Boxes,
    /// A point in the first box of the label.
    Point,
}

/// A box.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Rect {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// The boxes of a label, in the coordinates of responses.
#[derive(Clone, PartialEq, Debug)]
pub struct Boxes {
    boxes: Vec<Rect>,
    /// Largest coordinates of a point, if points are in pixels.
    most: Option<(f64, f64)>,
    least_overlap: f64,
    /// Weights of `compat`.
    weights: [f64; 3],
}

impl Rect {
    /// Returns the box with these functions of its x and y coordinates, and with sorted corners.
    fn mapped(self, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> Rect {
        let sorted = |a: f64, b: f64| (a.min(b), a.max(b));
        let ((left, right), (top, bottom)) = (sorted(x(self.left), x(self.right)), sorted(y(self.top), y(self.bottom)));
        Rect { left, top, right, bottom }
    }
}

impl Boxes {
    /// Reads the boxes of a label, which are in pixels of the original image. Returns `None` if there is none.
    pub fn of_label(text: &str, details: &Details, mode: Mode) -> Option<Boxes> {
        let (width, height) = details.image_size?;
        let normal = |value: f64, side: f64| (value / side * 1000.0).round_ties_even().clamp(0.0, 1000.0);
        let seen = details.processed_size.filter(|seen| *seen != (width, height));
        let converted = |rect: Rect| match (details.normalize_bbox_to_1000, seen) {
            (true, _) => rect.mapped(|x| normal(x, width), |y| normal(y, height)),
            (false, Some((w, h))) => rect.mapped(|x| x * w / width, |y| y * h / height),
            (false, None) if mode == Mode::Strict => rect.mapped(|x| x, |y| y),
            (false, None) => rect,
        };
        // Vero reads a box outside a list only when it converts it.
        let single = details.normalize_bbox_to_1000 || seen.is_some() || mode == Mode::Strict;
        let boxes: Vec<_> = boxes(text, mode, single)?.into_iter().map(converted).collect();
        // Vero limits points by the original image although they refer to the processed one.
        let limit = seen.filter(|_| mode == Mode::Strict).unwrap_or((width, height));
        let most = (!details.normalize_bbox_to_1000).then_some(limit);
        let least_overlap = details.iou_threshold.unwrap_or(LEAST_OVERLAP);
        let weights = details.component_weights.unwrap_or(WEIGHTS);
        (!boxes.is_empty()).then_some(Boxes { boxes, most, least_overlap, weights })
    }

    /// Returns the score of the boxes in a prediction, from 0 to 1.
    pub fn overlap(&self, prediction: &str, mode: Mode) -> f64 {
        let predicted = boxes(prediction, mode, false).unwrap_or_default();
        if predicted.is_empty() {
            return 0.0;
        }
        let overlaps: Vec<Vec<f64>> =
            predicted.iter().map(|one| self.boxes.iter().map(|right| overlap(one, right)).collect()).collect();
        let matched = best_matching(&overlaps, self.least_overlap);
        let (found, sum) = (matched.len() as f64, matched.iter().sum::<f64>());
        let (given, wanted) = (predicted.len() as f64, self.boxes.len() as f64);
        match mode {
            Mode::Strict => 2.0 * sum / (given + wanted),
            Mode::Compat => {
                let missed = 0.5 * ((given - found) / given + (wanted - found) / wanted);
                let parts = [sum / found.max(1.0), 2.0 * found / (given + wanted), -missed];
                parts.iter().zip(self.weights).map(|(part, weight)| part * weight).sum::<f64>().clamp(0.0, 1.0)
            }
        }
    }

    /// True if the first point of a prediction is in the first box, or on its border.
    pub fn is_hit(&self, prediction: &str, mode: Mode) -> bool {
        let point = objects(prediction, mode, false).and_then(|all| coordinates::<2>(all.first()?.get("point_2d")?));
        let inside = |[x, y]: [f64; 2]| {
            let Rect { left, top, right, bottom } = self.boxes[0];
            let in_image = self.most.is_none_or(|(w, h)| (0.0..=w).contains(&x) && (0.0..=h).contains(&y));
            in_image && (left..=right).contains(&x) && (top..=bottom).contains(&y)
        };
        point.is_some_and(inside)
    }
}

/// Returns a text without the Markdown fence around it.
pub fn without_fence(text: &str) -> &str {
    let inner = text.trim().strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.trim_start_matches("json").trim())
}

/// Returns the objects of a list; `None` if the text is neither a list of objects nor a `single` object that is allowed.
fn objects(text: &str, mode: Mode, single: bool) -> Option<Vec<Literal>> {
    let text = if mode == Mode::Strict { without_fence(text) } else { text };
    match Literal::parse(text)? {
        Literal::List(all) => Some(all).filter(|all| all.iter().all(|one| matches!(one, Literal::Object(_)))),
        one @ Literal::Object(_) if single => Some(vec![one]),
        _ => None,
    }
}

fn boxes(text: &str, mode: Mode, single: bool) -> Option<Vec<Rect>> {
    let rect = |[left, top, right, bottom]: [f64; 4]| Rect { left, top, right, bottom };
    Some(objects(text, mode, single)?.iter().filter_map(|one| coordinates(one.get("bbox_2d")?)).map(rect).collect())
}

fn coordinates<const N: usize>(value: &Literal) -> Option<[f64; N]> {
    let Literal::List(all) = value else { return None };
    let all: Option<Vec<f64>> = all.iter().map(Literal::number).collect();
    all?.try_into().ok()
}

/// Returns the intersection of two boxes divided by their union.
fn overlap(a: &Rect, b: &Rect) -> f64 {
    let side = |from: f64, to: f64| (to - from).max(0.0);
    let area = |rect: &Rect| side(rect.left, rect.right) * side(rect.top, rect.bottom);
    let width = side(a.left.max(b.left), a.right.min(b.right));
    let both = width * side(a.top.max(b.top), a.bottom.min(b.bottom));
    both / (area(a) + area(b) - both).max(1e-12)
}

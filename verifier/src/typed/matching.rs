//! The best assignment of predicted boxes to those of the label.

/// Returns the overlaps of a matching in which each row and each column is used at most once, every overlap is at least
/// `least`, the number of pairs is the largest possible, and their sum is the largest for that number. Hungarian method
/// with potentials: time is the square of the smaller side times the larger.
pub fn best_matching(overlaps: &[Vec<f64>], least: f64) -> Vec<f64> {
    let columns = overlaps.first().map_or(0, Vec::len);
    if overlaps.len() > columns {
        let turned: Vec<Vec<f64>> = (0..columns).map(|j| overlaps.iter().map(|row| row[j]).collect()).collect();
        return if columns == 0 { Vec::new() } else { best_matching(&turned, least) };
    }
    // A pair that is too far apart costs more than any number of pairs that are not.
    let far = overlaps.len() as f64 + 1.0;
    let cost = |i: usize, j: usize| if overlaps[i][j] >= least { 1.0 - overlaps[i][j] } else { far };
    // Column 0 and row 0 stand for none.
    let (mut row_potential, mut column_potential) = (vec![0.0; overlaps.len() + 1], vec![0.0; columns + 1]);
    let mut row_of = vec![0; columns + 1];
    for row in 1..=overlaps.len() {
        row_of[0] = row;
        let (mut slack, mut from, mut is_done) =
            (vec![f64::INFINITY; columns + 1], vec![0; columns + 1], vec![false; columns + 1]);
        let mut at = 0;
        while row_of[at] != 0 {
            is_done[at] = true;
            let (i, mut delta, mut next) = (row_of[at], f64::INFINITY, 0);
            for j in (1..=columns).filter(|&j| !is_done[j]) {
                let reduced = cost(i - 1, j - 1) - row_potential[i] - column_potential[j];
                if reduced < slack[j] {
                    (slack[j], from[j]) = (reduced, at);
                }
                if slack[j] < delta {
                    (delta, next) = (slack[j], j);
                }
            }
            for j in 0..=columns {
                if is_done[j] {
                    row_potential[row_of[j]] += delta;
                    column_potential[j] -= delta;
                } else {
                    slack[j] -= delta;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[from[at]];
            at = from[at];
        }
    }
    let pairs = (1..=columns).filter(|&j| row_of[j] != 0).map(|j| overlaps[row_of[j] - 1][j - 1]);
    pairs.filter(|overlap| *overlap >= least).collect()
}

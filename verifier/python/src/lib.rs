//! Python module `omr_verify`: the answer verifier and the reward of omr (`docs/python.md`).

mod batch;
mod read;
mod reward;

use omr_verify::Verdict;
use omr_verify::extract::predict_str;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use read::{Rules, STRICT, Spoken, Text};
use reward::{Item, Rubric, Scored};

/// Verdict of a comparison with its reason, as `omr verify` prints it.
#[derive(IntoPyObject)]
struct Explanation {
    equal: bool,
    gold_parsed: String,
    answer_parsed: String,
    why: &'static str,
}

/// Extracts the values of a column by its name, if it is there and not `None`.
fn column<'py, T: FromPyObjectOwned<'py>>(from: Option<&Bound<'py, PyDict>>, name: &str) -> PyResult<Option<T>> {
    let found = from.map(|from| from.get_item(name)).transpose()?.flatten();
    found.filter(|found| !found.is_none()).map(|found| found.extract().map_err(Into::into)).transpose()
}

/// The answer verifier and the reward of omr.
#[pymodule(name = "omr_verify")]
mod module {
    use super::*;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Returns whether an answer, alone or within a text, equals the gold answer.
    #[pyfunction]
    #[pyo3(signature = (gold, answer, mode = STRICT))]
    fn verify(py: Python, gold: Text, answer: Text, mode: Rules) -> bool {
        explain(py, gold, answer, mode).equal
    }

    /// Returns the verdict, both answers as the verifier understood them, and the rule that decided.
    #[pyfunction]
    #[pyo3(signature = (gold, answer, mode = STRICT))]
    fn explain(py: Python, gold: Text, answer: Text, mode: Rules) -> Explanation {
        let verdict = py.detach(|| omr_verify::verify(&gold.0, &answer.0, mode.0));
        let Verdict { equal, gold_parsed, answer_parsed, why, .. } = verdict;
        Explanation { equal, gold_parsed, answer_parsed, why }
    }

    /// Returns the verdicts on many pairs.
    #[pyfunction]
    #[pyo3(signature = (golds, answers, mode = STRICT, threads = None))]
    fn verify_many(
        py: Python,
        golds: Vec<Text>,
        answers: Vec<Text>,
        mode: Rules,
        threads: Option<usize>,
    ) -> PyResult<Vec<bool>> {
        read::same_length(&[("golds", golds.len()), ("answers", answers.len())])?;
        let pairs: Vec<_> = golds.iter().zip(&answers).collect();
        batch::map(py, &pairs, threads, |(gold, answer)| omr_verify::verify(&gold.0, &answer.0, mode.0).equal)
    }

    /// Returns the answer found in a response, and the rule that found it.
    #[pyfunction]
    #[pyo3(signature = (response, mode = STRICT))]
    fn extract(response: Text, mode: Rules) -> (String, &'static str) {
        let (answer, path) = predict_str(&response.0, mode.0);
        (answer.into_owned(), path.name())
    }

    /// Returns the reward of a response and its parts, as `omr score` prints them.
    #[pyfunction]
    #[pyo3(signature = (response, ground_truth, question = None, extra_info = None, **settings))]
    fn score(
        py: Python,
        response: Text,
        ground_truth: Text,
        question: Option<Text>,
        extra_info: Option<Bound<PyDict>>,
        settings: Option<&Bound<PyDict>>,
    ) -> PyResult<Scored> {
        let rubric = Rubric::read(settings)?;
        let item = Item::read(response, ground_truth, question, extra_info, rubric)?;
        py.detach(|| item.score(rubric)).map_err(Into::into)
    }

    /// Returns the rewards of many responses.
    #[pyfunction]
    #[pyo3(signature = (responses, ground_truths, questions = None, extra_infos = None, threads = None, **settings))]
    fn score_many(
        py: Python,
        responses: Vec<Text>,
        ground_truths: Vec<Text>,
        questions: Option<Vec<Option<Text>>>,
        extra_infos: Option<Vec<Option<Bound<PyDict>>>>,
        threads: Option<usize>,
        settings: Option<&Bound<PyDict>>,
    ) -> PyResult<Vec<Scored>> {
        let (rubric, count) = (Rubric::read(settings)?, responses.len());
        let questions = questions.unwrap_or_else(|| (0..count).map(|_| None).collect());
        let extra_infos = extra_infos.unwrap_or_else(|| vec![None; count]);
        let others = [("questions", questions.len()), ("extra_infos", extra_infos.len())];
        read::same_length(&[("responses", count), ("ground_truths", ground_truths.len()), others[0], others[1]])?;
        let rows = responses.into_iter().zip(ground_truths).zip(questions).zip(extra_infos);
        let item = |(((response, truth), question), extra)| Item::read(response, truth, question, extra, rubric);
        let items = rows.map(item).collect::<PyResult<Vec<Item>>>()?;
        let scores = batch::map(py, &items, threads, |item| item.score(rubric))?;
        scores.into_iter().map(|scored| scored.map_err(Into::into)).collect()
    }

    /// The reward function of verl.
    #[pyfunction]
    #[pyo3(signature = (data_source, solution_str, ground_truth, extra_info = None, **settings))]
    fn compute_score(
        py: Python,
        data_source: &Bound<PyAny>,
        solution_str: Text,
        ground_truth: Text,
        extra_info: Option<Bound<PyDict>>,
        settings: Option<&Bound<PyDict>>,
    ) -> PyResult<Scored> {
        let _ = data_source;
        score(py, solution_str, ground_truth, column(extra_info.as_ref(), "question")?, extra_info, settings)
    }

    /// A reward function of TRL. The labels are the column `ground_truth`, or else `solution`.
    #[pyfunction]
    #[pyo3(signature = (completions, prompts = None, settings = None, threads = None, **columns))]
    fn trl_reward(
        py: Python,
        completions: Vec<Spoken>,
        prompts: Option<Vec<Spoken>>,
        settings: Option<&Bound<PyDict>>,
        threads: Option<usize>,
        columns: Option<&Bound<PyDict>>,
    ) -> PyResult<Vec<f64>> {
        let labels =
            column(columns, "ground_truth")?.map_or_else(|| column(columns, "solution"), |all| Ok(Some(all)))?;
        let labels = labels.ok_or_else(|| PyTypeError::new_err("expected a column ground_truth or solution"))?;
        let asked = prompts.map(|all| all.into_iter().map(|prompt| Some(prompt.0)).collect());
        let questions = column(columns, "question")?.or(asked);
        let responses = completions.into_iter().map(|completion| completion.0).collect();
        let extra_infos = column(columns, "extra_info")?;
        let scores = score_many(py, responses, labels, questions, extra_infos, threads, settings)?;
        Ok(scores.into_iter().map(|scored| scored.score).collect())
    }
}

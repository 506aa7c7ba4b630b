use super::super::tests::no_env;
use super::super::*;

#[test]
fn the_environment_names_the_teacher_and_its_key_is_never_written() {
    let env = |name: &str| match name {
        "OAI_BASE_URL" => Some("http://localhost:9/v1".to_owned()),
        "OAI_API_KEY" => Some("hidden-word".to_owned()),
        "MODEL_VERSION" => Some("qwen3-vl".to_owned()),
        _ => None,
    };
    let config: DistillConfig = load(None, &["teacher.model=other".to_owned()], &env).unwrap();
    let teacher = config.teacher.clone().unwrap();
    assert_eq!(
        (teacher.base_url.as_slice(), teacher.model.as_str()),
        (&["http://localhost:9/v1".to_owned()][..], "other")
    );
    assert_eq!(teacher.api_key, Secret(Some("hidden-word".to_owned())));
    assert!(!to_yaml(&config).unwrap().contains("hidden-word") && !format!("{config:?}").contains("hidden-word"));
}

#[test]
fn a_key_in_the_query_of_an_address_is_sent_and_never_written() {
    let key = format!("hf_{}", "aB3".repeat(11));
    let lines = [
        "judge.base_url=http://u:PASS@h/v1?api_key=SECRET".to_owned(),
        "judge.model=m".to_owned(),
        format!("reward.command=[python3, r.py, --token, {key}]"),
    ];
    let config: RlConfig = load(None, &lines, &|_| None).unwrap();
    assert_eq!(config.judge.as_ref().unwrap().base_url[0], "http://u:PASS@h/v1?api_key=SECRET");
    assert_eq!(config.reward.scorer.command[3], key);
    let written = to_yaml(&config).unwrap();
    assert!(written.contains("http://h/v1?***") && written.contains("r.py"), "{written}");
    assert!(["PASS", "SECRET", key.as_str()].iter().all(|part| !written.contains(part)), "{written}");
    // A run with this config is continued, although its file lacks the secrets.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &written).unwrap();
    let recorded: RlConfig = load(Some(file.path()), &[], &|_| None).unwrap();
    assert!(source::differences(&recorded, &config).is_empty());
}

#[test]
fn the_environment_turns_the_judge_on_and_off() {
    let load_rl = |use_judge: &str, lines: &[&str]| -> crate::error::Result<RlConfig> {
        let env = |name: &str| match name {
            "USE_LLM_JUDGE" => Some(use_judge.to_owned()),
            "OPENAI_BASE_URL" => Some("http://localhost:9/v1".to_owned()),
            "OPENAI_API_KEY" => Some("hidden-word".to_owned()),
            "OPENAI_MODEL_NAME" => Some("j".to_owned()),
            _ => None,
        };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        load(None, &lines, &env)
    };
    let judge = load_rl("YES", &["judge.concurrency=3"]).unwrap().judge.unwrap();
    assert_eq!((judge.base_url[0].as_str(), judge.model.as_str()), ("http://localhost:9/v1", "j"));
    assert_eq!((judge.concurrency, judge.temperature, judge.max_tokens), (3, Some(0.0), 5));
    assert_eq!(judge.api_key, Secret(Some("hidden-word".to_owned())));
    assert_eq!(load_rl("no", &[]).unwrap().judge, None);
    assert_eq!(load_rl("", &[]).unwrap().judge, None);
    // Values from the command line take precedence. A judge from the command line takes only the API key from the
    // environment.
    let typed = ["judge.base_url=http://localhost:8/v1", "judge.model=k"];
    let judge = load_rl("", &typed).unwrap().judge.unwrap();
    assert_eq!((judge.base_url[0].as_str(), judge.model.as_str()), ("http://localhost:8/v1", "k"));
    assert_eq!(judge.api_key, Secret(Some("hidden-word".to_owned())));
    let error = load_rl("", &["judge.model=k"]).unwrap_err().to_string();
    assert!(error.contains("judge.base_url") && error.contains("OPENAI_BASE_URL"), "{error}");
    let env = |name: &str| (name == "USE_LLM_JUDGE").then(|| "1".to_owned());
    let error = load::<RecipeConfig>(None, &[], &env).unwrap_err().to_string();
    assert!(error.contains("data.judge.base_url"), "{error}");
}

/// The text of the file is part of the config, so that a changed file is a changed config.
#[test]
fn the_judges_prompt_comes_from_its_file_and_must_have_its_placeholders() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let load_rl = |prompt: &str| -> crate::error::Result<RlConfig> {
        std::fs::write(file.path(), prompt).unwrap();
        let judge = ["base_url=http://localhost:8/v1", "model=k"].map(|line| format!("judge.{line}"));
        let path = format!("judge.prompt_file={}", file.path().display());
        load(None, &[judge.as_slice(), &[path]].concat(), &no_env)
    };
    let [one, other] =
        ["Is {prediction} {answer}?", "Is {prediction} {answer}? 1 or 0"].map(|text| load_rl(text).unwrap());
    assert_eq!(one.judge.as_ref().unwrap().prompt, ["Is {prediction} {answer}?"]);
    assert_ne!(to_yaml(&one).unwrap(), to_yaml(&other).unwrap());
    let error = load_rl("Is {answer} right?").unwrap_err().to_string();
    assert!(error.contains("judge.prompt_file") && error.contains("{prediction}"), "{error}");
    let missing = ["judge.base_url=http://localhost:8/v1", "judge.model=k", "judge.prompt_file=missing.txt"];
    let error = load::<RlConfig>(None, &missing.map(str::to_owned), &no_env).unwrap_err().to_string();
    assert!(error.contains("judge.prompt_file: missing.txt"), "{error}");
    let two = format!("judge.prompt_file=[{}, missing.txt]", file.path().display());
    std::fs::write(file.path(), "{question} {prediction} {answer}").unwrap();
    let load_two = |more: &[&str]| {
        let list = [&missing[..2], &[two.as_str()], more].concat();
        load::<RlConfig>(None, &list.into_iter().map(str::to_owned).collect::<Vec<_>>(), &no_env)
    };
    let error = load_two(&[]).unwrap_err().to_string();
    assert!(error.contains("judge.prompt_file: missing.txt: found"), "{error}");
    let none = load_two(&["judge.prompt_file=\"\""]).unwrap().judge.unwrap();
    assert!(none.prompt_file.is_empty() && none.prompt.is_empty(), "an empty text is no file: {none:?}");
}

//! Tests the answer store: the content of a request is the key of its answer, answers survive any kill, only one
//! process uses a store, and shards are merged.

use std::fs;
use std::path::{Path, PathBuf};

use omr_base::answers::{self, Key, Store};
use omr_base::client::Completion;

fn answer(i: u64) -> Completion {
    Completion {
        text: format!("answer {i}\n{}", "x".repeat(i as usize * 97 % 5000)),
        finish_reason: "stop".to_owned(),
        prompt_tokens: i,
        completion_tokens: 2 * i,
    }
}

fn key(i: u64) -> Key {
    Key::new("model", &i.to_le_bytes(), "greedy")
}

fn fill(store: &Store, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|i| store.put(&key(i), &format!("question {i}"), &answer(i)).unwrap());
}

/// Returns the numbers of the first hundred answers that the store contains. Each of them must be unchanged.
fn there(store: &Store) -> Vec<u64> {
    let found = (0..100).filter_map(|i| Some((i, store.get(&key(i)).unwrap()?)));
    let found = found.inspect(|(i, found)| assert_eq!(*found, answer(*i)));
    found.map(|(i, _)| i).collect()
}

/// Returns the number of answers in a store, which may not have its table yet.
pub fn count(path: &Path) -> u64 {
    let store = rusqlite::Connection::open(path).unwrap();
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'answers'";
    if store.query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
        return 0;
    }
    store.query_row("SELECT count(*) FROM answers", [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

/// Returns the write-ahead log of the file, which contains data that is not in the file yet.
fn log(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}-wal", path.file_name().unwrap().to_str().unwrap()))
}

#[test]
fn answers_are_found_by_who_what_and_how() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run").join(answers::FILE);
    let store = Store::open(&path).unwrap();
    fill(&store, 0..3);
    // The first answer for a key stays.
    store.put(&key(1), "again", &answer(7)).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!(there(&store), [0, 1, 2]);
    drop(store);
    assert_eq!(count(&path), 3);
    let kept = Key::new("a", b"bc", "d");
    let others = [("ab", "c", "d"), ("a", "b", "cd"), ("", "abc", "d"), ("a", "bc", "e")];
    assert!(others.iter().all(|(who, what, how)| Key::new(who, what.as_bytes(), how) != kept));
    assert_eq!(kept, Key::new("a", b"bc", "d"));
}

/// Tests a kill at any byte. The test copies the written bytes while the store is open, and cuts the log at any byte.
#[test]
fn a_kill_at_any_byte_loses_nothing_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.sqlite");
    let store = Store::open(&path).unwrap();
    let left = dir.path().join("left.sqlite");
    let mut lengths = Vec::new();
    for i in 0..20 {
        fill(&store, [i]);
        lengths.push(fs::metadata(log(&path)).unwrap().len());
        let _ = fs::remove_file(log(&left));
        fs::copy(&path, &left).unwrap();
        fs::copy(log(&path), log(&left)).unwrap();
        assert_eq!(there(&Store::open(&left).unwrap()), (0..=i).collect::<Vec<_>>());
    }
    assert!(lengths.is_sorted(), "the log began anew: cut it where it stands then");
    let bytes = fs::read(log(&path)).unwrap();
    for cut in (0..bytes.len()).step_by(1999) {
        let _ = fs::remove_file(&left);
        fs::copy(&path, &left).unwrap();
        fs::write(log(&left), &bytes[..cut]).unwrap();
        let kept = lengths.iter().filter(|&&length| length as usize <= cut).count() as u64;
        let found = there(&Store::open(&left).unwrap());
        assert_eq!(found, (0..kept).collect::<Vec<_>>(), "cut at {cut} of {}", bytes.len());
    }
}

#[test]
fn a_store_that_is_open_is_refused_by_name_and_a_shared_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.sqlite");
    let store = Store::open(&path).unwrap();
    for error in [
        Store::open(&path).err().unwrap(),
        Store::open(&dir.path().join("other.sqlite")).unwrap().merge(&path).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            error.exit_code() == 2 && text.contains("answers.sqlite") && text.contains("another process"),
            "{text}"
        );
    }
    drop(store);
    let write = |part: u64| {
        let store = Store::shared(&path).unwrap();
        fill(&store, (0..100).filter(|i| i % 4 == part || i % 5 == 0));
    };
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || write(part));
        }
    });
    assert_eq!(there(&Store::open(&path).unwrap()).len(), 100);
}

#[test]
fn a_text_file_is_not_turned_into_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for text in ["x", "my notes\n", &"a longer file\n".repeat(500)] {
        fs::write(&path, text).unwrap();
        for error in [Store::open(&path).err().unwrap(), Store::shared(&path).err().unwrap()] {
            assert!(error.exit_code() == 2 && error.to_string().contains("notes.txt"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_shared_store_that_several_create_at_once_is_opened_by_all() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = dir.path().join(format!("{round}.sqlite"));
        let open = |i: u64| Store::shared(&path).and_then(|store| store.put(&key(i), "c", &answer(i)));
        let done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || open(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(done.iter().all(Result::is_ok), "round {round}: {done:?}");
    }
}

#[test]
fn what_is_no_store_is_said_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answers.sqlite");
    fs::write(&path, "no database at all, and long enough to be read as the head of one: ".repeat(20)).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("answers.sqlite"), "{error}");
    fs::remove_file(&path).unwrap();
    let store = Store::open(&path).unwrap();
    let missing = store.merge(&dir.path().join("none.sqlite")).unwrap_err().to_string();
    assert!(missing.contains("none.sqlite") && !dir.path().join("none.sqlite").exists(), "{missing}");
    drop(store);
    // The layout of a later version.
    let mut bytes = fs::read(&path).unwrap();
    bytes[63] = 9;
    fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).err().unwrap().to_string();
    assert!(error.contains("layout 9"), "{error}");
}

#[test]
fn shards_come_together_in_the_store_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (n, run) = (4, dir.path());
    for i in 0..n {
        let store = Store::open(&answers::shard(run, i, n)).unwrap();
        // One answer is in all shards.
        fill(&store, (0..100).filter(|k| *k as usize % n == i || *k == 50));
    }
    fs::write(run.join("answers-x-of-y.sqlite"), "").unwrap();
    assert_eq!(answers::shards(run).unwrap().len(), n);
    let working = Store::open(&answers::shard(run, 2, n)).unwrap();
    let error = Store::of_run(run).err().unwrap().to_string();
    assert!(error.contains("answers-2-of-4.sqlite"), "{error}");
    drop(working);
    let store = Store::of_run(run).unwrap();
    assert_eq!(there(&store).len(), 100);
    drop(store);
    assert_eq!(count(&run.join(answers::FILE)), 100);
    assert_eq!(answers::shards(run).unwrap(), Vec::<PathBuf>::new());
}

/// Tests that each of two ranks finds the answers of a run of three ranks, and writes to its own shard.
#[test]
fn ranks_of_any_number_find_what_others_answered() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("a run? 100% #1");
    fs::create_dir(&run).unwrap();
    answers::gather(&run).unwrap();
    assert!(!run.join(answers::FILE).exists(), "a store for nothing");
    let all = |store: &Store, keys: std::ops::Range<u64>| keys.into_iter().all(|k| store.has(&key(k)).unwrap());
    for i in 0..3 {
        fill(&Store::of_rank(&run, i, 3).unwrap(), 10 * i as u64..10 * i as u64 + 10);
    }
    answers::gather(&run).unwrap();
    assert_eq!(answers::shards(&run).unwrap(), Vec::<PathBuf>::new());
    let ranks = [0, 1].map(|i| Store::of_rank(&run, i, 2).unwrap());
    for (i, rank) in ranks.iter().enumerate() {
        assert!(all(rank, 0..30) && rank.get(&key(7)).unwrap() == Some(answer(7)), "rank {i}");
        assert!(!rank.has(&key(30)).unwrap());
        fill(rank, 30 + i as u64..31 + i as u64);
    }
    drop(ranks);
    let whole = Store::of_run(&run).unwrap();
    assert!(all(&whole, 0..32));
    drop(whole);
    assert_eq!(count(&run.join(answers::FILE)), 32);
}

//! Tests how much memory a process may allocate.

use omr_runtime::machine::FreeMemory;

const INFO: &str = "MemTotal:  24000000 kB\nMemFree: 1000 kB\nMemAvailable:  20000000 kB\n";

fn free(groups: &str, files: &[(&str, &str)]) -> FreeMemory {
    let read = |path: &str| {
        let file = files.iter().find(|(name, _)| path == format!("/sys/fs/cgroup/{name}"));
        file.map(|(_, text)| (*text).to_owned())
    };
    FreeMemory::of(INFO, groups, read).unwrap()
}

#[test]
fn without_a_limit_the_available_memory_counts() {
    let none = FreeMemory { bytes: 20_000_000 * 1024, limit: None };
    assert_eq!(free("", &[]), none);
    assert_eq!(free("0::/a\n", &[("a/memory.max", "max\n")]), none);
    // Version 1 reports an unlimited group as a very large number.
    assert_eq!(free("4:memory:/\n", &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]), none);
}

#[test]
fn the_smallest_rest_of_all_groups_counts_and_cached_files_are_free() {
    let files = [
        ("job/memory.max", "8000000000\n"),
        ("job/memory.current", "1000000000\n"),
        ("job/step/memory.max", "6000000000\n"),
        ("job/step/memory.current", "900000000\n"),
        ("job/step/memory.stat", "anon 1\ninactive_file 300000000\nactive_file 100000000\n"),
    ];
    let rest = FreeMemory { bytes: 5_500_000_000, limit: Some(6_000_000_000) };
    assert_eq!(free("0::/job/step\n", &files), rest);
    let old = [("memory/memory.limit_in_bytes", "3000000000"), ("memory/memory.usage_in_bytes", "1000000000")];
    // A container sees its own group as the root, while the path is that of the host.
    let rest = FreeMemory { bytes: 2_000_000_000, limit: Some(3_000_000_000) };
    assert_eq!(free("5:cpu:/x\n4:memory:/docker/abc\n", &old), rest);
}

//! All metrics of the control plane, with their help texts. Labels are closed enums; ids are in logs only.

use metrics::{describe_counter, describe_gauge, describe_histogram};

macro_rules! list {
    ($($kind:ident $name:ident = $text:literal, $help:literal;)+) => {
        $(#[doc = $help] pub const $name: &str = $text;)+

        /// Gives every metric its help text.
        pub fn describe() {
            $($kind!($text, $help);)+
        }

        /// Name and help text of every metric.
        pub const ALL: &[(&str, &str)] = &[$(($text, $help)),+];
    };
}

list! {
    describe_gauge GENERATION = "switchyard_generation", "Generation of the newest compiled table.";
    describe_gauge PROBLEMS = "switchyard_table_problems", "Rows that are left out of the table because they are broken.";
    describe_histogram COMPILE_SECONDS = "switchyard_compile_seconds", "Time to compile a change into sections.";
    describe_counter RECONCILE_ERRORS = "switchyard_reconcile_errors_total", "Attempts to read the configuration that failed.";
    describe_gauge SUBSCRIBERS = "switchyard_subscribers", "Proxies connected to this replica.";
    describe_counter PUSHED_SECTIONS = "switchyard_pushed_sections_total", "Sections sent to proxies.";
    describe_counter PUSHED_BYTES = "switchyard_pushed_bytes_total", "Payload bytes of sections sent to proxies.";
    describe_counter REJECTED_SECTIONS = "switchyard_rejected_sections_total", "Sections that proxies refused.";
    describe_counter TABLE_MISMATCHES = "switchyard_table_mismatches_total", "Acknowledgements of another table than was sent.";
    describe_counter HEALTH_STORED = "switchyard_health_transitions_total", "Provider health transitions stored.";
    describe_counter HEALTH_REFUSED = "switchyard_health_refused_total", "Provider health reports that were malformed or could not be stored.";
    describe_counter INGESTED = "switchyard_usage_records_total", "Usage records received, by result: inserted, known, refused (kept as dead letters).";
    describe_counter INGEST_ERRORS = "switchyard_ingest_errors_total", "Usage batches that were not committed; the proxy sends them again.";
    describe_histogram INGEST_SECONDS = "switchyard_ingest_seconds", "Time to commit a batch of usage records.";
    describe_gauge COMPARISON_HELD_UP = "switchyard_comparison_held_up", "1 while a connected proxy has delivered no records for ten minutes, so that no counter is compared with the ledger; the log names it.";
    describe_gauge ROLLUP_MISMATCHES = "switchyard_rollup_mismatches", "Sums of the last day that differ from the records.";
    describe_counter JOB_RUNS = "switchyard_job_runs_total", "Runs of background jobs, by job and result.";
    describe_gauge DB_IN_USE = "switchyard_db_connections_in_use", "Postgres connections on loan.";
    describe_gauge DB_OPEN = "switchyard_db_connections_open", "Postgres connections open.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut names: Vec<_> = ALL.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().all(|name| name.starts_with("switchyard_")));
    }
}

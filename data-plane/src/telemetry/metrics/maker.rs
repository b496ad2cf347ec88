//! Makes handles of the declared metrics on one recorder.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

const METADATA: Metadata<'static> = Metadata::new("data_plane", Level::INFO, None);

/// A label's name and all its values.
type Cases<'a> = (&'static str, &'a [&'static str]);

/// Counters of one family, one per case of an enum.
pub(super) struct ByCase(Box<[Counter]>);

impl ByCase {
    pub(super) fn at(&self, case: usize) -> &Counter {
        &self.0[case]
    }
}

pub(super) struct Maker<'a>(pub(super) &'a PrometheusRecorder);

impl Maker<'_> {
    pub(super) fn counter(&self, name: &'static str) -> Counter {
        self.labelled(name, &[])
    }

    pub(super) fn gauge(&self, name: &'static str) -> Gauge {
        self.0.register_gauge(&Key::from_static_name(name), &METADATA)
    }

    pub(super) fn family(&self, name: &'static str, label: &'static str, cases: &[&'static str]) -> ByCase {
        ByCase(cases.iter().map(|case| self.labelled(name, &[(label, *case)])).collect())
    }

    pub(super) fn families(&self, name: &'static str, outer: Cases<'_>, inner: Cases<'_>) -> Box<[ByCase]> {
        let one = |value: &'static str| {
            let cases = inner.1.iter().map(|case| self.labelled(name, &[(outer.0, value), (inner.0, *case)]));
            ByCase(cases.collect())
        };
        outer.1.iter().map(|value| one(value)).collect()
    }

    pub(super) fn histograms(
        &self,
        name: &'static str,
        label: &'static str,
        cases: &[&'static str],
    ) -> Box<[Histogram]> {
        let one = |case: &&'static str| {
            let labels = vec![Label::from_static_parts(label, case)];
            self.0.register_histogram(&Key::from_parts(name, labels), &METADATA)
        };
        cases.iter().map(one).collect()
    }

    fn labelled(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        let labels: Vec<_> = labels.iter().map(|(key, value)| Label::from_static_parts(key, value)).collect();
        self.0.register_counter(&Key::from_parts(name, labels), &METADATA)
    }
}

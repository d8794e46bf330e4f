//! Metrics.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::certs::Certificates;
use crate::policy::{Action, Entry, Verdict};
use crate::world::Kind;

/// From far below what a review takes to the API server's usual patience.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

/// How a review ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passes without a word.
    Allow,
    /// It passes with warnings.
    Warn,
    /// It is refused.
    Deny,
    /// Nobody can say now; the API server is told to ask again.
    Undecided,
    /// The request could not be read, or judging it failed.
    Error,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Warn, Self::Deny, Self::Undecided, Self::Error];

    /// What becomes of the write.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            verdict if !verdict.is_decided() => Self::Undecided,
            verdict if !verdict.allowed() => Self::Deny,
            verdict if verdict.of_action(Action::Warn).next().is_some() => Self::Warn,
            _ => Self::Allow,
        }
    }

    /// As labels and audit annotations spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Deny => "deny",
            Self::Undecided => "undecided",
            Self::Error => "error",
        }
    }
}

/// How a live read ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum LiveRead {
    Ok,
    Error,
    Slow,
}

impl LiveRead {
    const ALL: [Self; 3] = [Self::Ok, Self::Error, Self::Slow];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Slow => "timeout",
        }
    }
}

/// What the gate counts. Every label value comes from a table, so no caller can make the number of series grow.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: IntCounterVec,
    findings: IntCounterVec,
    duration: Histogram,
    live_reads: IntCounterVec,
    overload: IntCounter,
    listed: IntGaugeVec,
    installed: IntGaugeVec,
    policy_current: IntGauge,
    policy_failures: IntCounter,
}

impl Metrics {
    /// Registers every series at 0, those of `entries` included, so that a rate sees the first increase.
    ///
    /// # Errors
    /// Where `registry` has one of these metrics already: one registry is for one server.
    pub fn new(
        registry: Registry,
        entries: &[Entry],
        certificates: &Certificates,
    ) -> Result<Self, prometheus::Error> {
        let reviews = IntCounterVec::new(
            Opts::new("sluicegate_reviews_total", "Reviews by what was answered."),
            &["verdict"],
        )?;
        let findings = IntCounterVec::new(
            Opts::new("sluicegate_findings_total", "Findings by rule and by what they did."),
            &["rule", "action"],
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "sluicegate_review_duration_seconds",
                "From the head of a request to its answer, its body and live reads included.",
            )
            .buckets(BUCKETS.to_vec()),
        )?;
        let live_reads = IntCounterVec::new(
            Opts::new("sluicegate_live_reads_total", "Live reads before a refusal, by result."),
            &["result"],
        )?;
        let overload = IntCounter::new(
            "sluicegate_overload_total",
            "Requests and connections turned away because too many were open.",
        )?;
        let listed = IntGaugeVec::new(
            Opts::new("sluicegate_kind_listed", "1 where a kind has been listed or is not needed."),
            &["kind"],
        )?;
        let installed = IntGaugeVec::new(
            Opts::new(
                "sluicegate_kind_installed",
                "0 where the API server does not serve a kind, because its CRD is missing; it is looked for again.",
            ),
            &["kind"],
        )?;
        let policy_current = IntGauge::new(
            "sluicegate_policy_current",
            "1 where the policy in force is what its file says, 0 where the file cannot be used.",
        )?;
        // Without a file there is nothing that could say something else.
        policy_current.set(1);
        let policy_failures = IntCounter::new(
            "sluicegate_policy_reload_failures_total",
            "How often the policy's file could not be used; the last good policy stays in force.",
        )?;
        let own: [Box<dyn Collector>; 9] = [
            Box::new(reviews.clone()),
            Box::new(findings.clone()),
            Box::new(duration.clone()),
            Box::new(live_reads.clone()),
            Box::new(overload.clone()),
            Box::new(listed.clone()),
            Box::new(installed.clone()),
            Box::new(policy_current.clone()),
            Box::new(policy_failures.clone()),
        ];
        for collector in own.into_iter().chain(certificates.collectors()) {
            registry.register(collector)?;
        }
        registry.register(Box::new(ProcessCollector::for_self()))?;

        for outcome in Outcome::ALL {
            reviews.with_label_values(&[outcome.name()]);
        }
        for entry in entries {
            for action in [Action::Deny, Action::Warn, Action::Audit] {
                findings.with_label_values(&[entry.id, action.name()]);
            }
        }
        for result in LiveRead::ALL {
            live_reads.with_label_values(&[result.name()]);
        }
        for kind in Kind::ALL {
            listed.with_label_values(&[kind.name()]);
            installed.with_label_values(&[kind.name()]);
        }
        Ok(Self {
            registry,
            reviews,
            findings,
            duration,
            live_reads,
            overload,
            listed,
            installed,
            policy_current,
            policy_failures,
        })
    }

    /// One review was answered.
    pub(super) fn reviewed(&self, outcome: Outcome, took: Duration) {
        self.reviews.with_label_values(&[outcome.name()]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A verdict was given.
    pub(super) fn found(&self, verdict: &Verdict) {
        for finding in &verdict.findings {
            self.findings.with_label_values(&[finding.rule, finding.action.name()]).inc();
        }
    }

    /// References were read live.
    pub(super) fn live_read(&self, result: LiveRead) {
        self.live_reads.with_label_values(&[result.name()]).inc();
    }

    /// Somebody was turned away.
    pub(super) fn overloaded(&self) {
        self.overload.inc();
    }

    /// What the policy's file says is in force.
    pub(super) fn policy_is_current(&self) {
        self.policy_current.set(1);
    }

    /// The policy's file could not be used.
    pub(super) fn policy_failed(&self) {
        self.policy_current.set(0);
        self.policy_failures.inc();
    }

    /// All series as Prometheus reads them; the kinds in `missing` count as not listed, those in `absent` as not installed.
    pub(super) fn text(
        &self,
        missing: &[Kind],
        absent: &[Kind],
    ) -> Result<String, prometheus::Error> {
        for kind in Kind::ALL {
            let is_listed = !missing.contains(&kind);
            self.listed.with_label_values(&[kind.name()]).set(is_listed.into());
            let is_installed = !absent.contains(&kind);
            self.installed.with_label_values(&[kind.name()]).set(is_installed.into());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

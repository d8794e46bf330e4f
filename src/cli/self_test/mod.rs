//! `sluicegate self-test`: what an API server does with a write, done by hand, and compared with what the policy says.

mod examples;
mod places;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use kube::Client;

use self::examples::Example;
use self::places::Webhook;
use self::report::Report;
use super::caller::Caller;
use super::{complain, policy, print};
use crate::cluster;
use crate::policy::{Policies, Policy};

/// How long until everything is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Arguments of `sluicegate self-test`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is written: the reviews go straight to the webhook, for an object that does not exist. Exit code 0 where all is well, 1 where it is not."
)]
pub(super) struct SelfTest {
    /// The ValidatingWebhookConfiguration by which API servers reach the gate.
    #[arg(long, value_name = "NAME", default_value = "sluicegate")]
    webhook_configuration: String,
    /// The policy that the gate judges by; the built-in default without one.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// How long to try: a gate that was just installed may still be publishing its certificate.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The namespace in which the example is said to be; where meshConfig.discoverySelectors are set, one that istiod reads.
    #[arg(long, value_name = "NAMESPACE", default_value = "sluicegate-self-test")]
    namespace: String,
    /// How to reach the API server; without it as kubectl would, or as a Pod does.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl SelfTest {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.until_good())
    }

    async fn until_good(self) -> anyhow::Result<ExitCode> {
        let client = cluster::client(self.kubeconfig.as_deref()).await?;
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            let report = self.attempt(&client).await;
            if report.is_good() || begun.elapsed() + AGAIN > self.timeout {
                print(&report.to_string());
                return Ok(ExitCode::from(u8::from(!report.is_good())));
            }
            if !std::mem::replace(&mut is_told, true) {
                let limit = humantime::format_duration(self.timeout);
                complain(&format!("not yet: {}; trying for {limit}", report.first_problem()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn attempt(&self, client: &Client) -> Report {
        let mut report = Report::default();
        let policies = self.read_policy(&mut report);
        let name = &self.webhook_configuration;
        let what = format!("ValidatingWebhookConfiguration {name}");
        let entries = match cluster::webhooks(client, name).await {
            Ok(entries) => entries,
            Err(error) => {
                report.bad(&what, &error, "");
                return report;
            }
        };
        match places::unasked(&entries) {
            unasked if unasked.is_empty() => {
                let names = entries.iter().map(|own| own.name.as_str()).collect::<Vec<_>>();
                report.good(&what, names.join(", "));
            }
            unasked => report.bad(
                &what,
                format!("the gate is not asked about {}", unasked.join(", ")),
                "register it as docs/webhook.md shows; until then these writes are not judged",
            ),
        }
        for webhook in places::distinct(&entries) {
            self.ask(client, &webhook, policies.as_ref(), &mut report).await;
        }
        report
    }

    fn read_policy(&self, report: &mut Report) -> Option<Policies> {
        let what = match &self.policy {
            Some(path) => format!("policy {}", path.display()),
            None => "policy".to_owned(),
        };
        match policy::load(self.policy.as_deref()) {
            Ok(policies) => {
                let names = policies.written().map(Policy::name).collect::<Vec<_>>().join(", ");
                let said = if names.is_empty() { "the built-in default".to_owned() } else { names };
                report.good(&what, said);
                Some(policies)
            }
            Err(error) => {
                let remedy = "correct it; until then the gate goes on with the last good one";
                report.bad(&what, error, remedy);
                None
            }
        }
    }

    /// Connects to one webhook and asks it about the examples.
    async fn ask(
        &self,
        client: &Client,
        webhook: &Webhook<'_>,
        policies: Option<&Policies>,
        report: &mut Report,
    ) {
        let what = webhook.names();
        let Some(ca_pem) = webhook.ca_pem() else {
            report.bad(
                &what,
                "caBundle is empty, so that API servers do not trust the gate",
                "with --certs self-managed a replica of the gate fills it in, otherwise cert-manager or you; look at the log of the gate",
            );
            return;
        };
        let place = match webhook.place(client).await {
            Ok(place) => place,
            Err(error) => return report.bad(&what, format!("{error:#}"), ""),
        };
        let at = format!("https://{}{} at {}", place.host, place.path, place.address);
        let connecting = tokio::time::timeout(CONNECT_LIMIT, Caller::connect(&place, ca_pem));
        let mut caller = match connecting.await {
            Ok(Ok(caller)) => caller,
            Ok(Err(error)) => {
                return report.bad(&what, format!("{at}: {error:#}"), places::remedy(&error));
            }
            Err(_) => {
                let found = format!("{at}: no connection within {} s", CONNECT_LIMIT.as_secs());
                return report.bad(&what, found, places::UNREACHABLE);
            }
        };
        report.good(&what, format!("{at}: trusted, {}", caller.protocol));
        for example in Example::ALL {
            let limit = webhook.timeout();
            let review = example.review(&self.namespace);
            let answered = tokio::time::timeout(limit, caller.review(&review)).await;
            let answered = answered
                .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", limit.as_secs())));
            let wanted = policies.map(|policies| example.wanted(&self.namespace, policies));
            match answered.and_then(|answer| example.judge(&answer, wanted.as_ref())) {
                Ok(said) => report.good(&what, said),
                Err(error) => {
                    report.bad(&what, format!("{}: {error:#}", example.name()), example.remedy());
                }
            }
        }
    }
}

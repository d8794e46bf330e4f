//! Sends the writes, and counts.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Counts, NAMESPACE, RATE, shop};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is written to one application, over and over; the canary's percentage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A step that the policy allows.
    Step,
    /// The weights swapped.
    Typo,
    /// Back to the stable version.
    Rollback,
}

impl Turn {
    fn canary(self) -> u32 {
        match self {
            Self::Step => 1,
            Self::Typo => 99,
            Self::Rollback => 0,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Step => Self::Typo,
            Self::Typo => Self::Rollback,
            Self::Rollback => Self::Step,
        }
    }
}

/// What became of a write.
enum Fate {
    Stored,
    Refused(String),
    Missed(String),
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    took: Vec<f64>,
    first_missed: Option<Instant>,
}

pub(super) fn run(kubeconfig: &Path) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(write(kubeconfig))
}

async fn write(kubeconfig: &Path) -> Result<(), Error> {
    let config = Config::from_custom_kubeconfig(
        Kubeconfig::read_from(kubeconfig)?,
        &KubeConfigOptions::default(),
    )
    .await?;
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1", "VirtualService");
    let api: Api<DynamicObject> =
        Api::namespaced_with(Client::try_from(config)?, NAMESPACE, &ApiResource::from_gvk(&kind));
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (free, mut idle) = mpsc::unbounded_channel();
    for number in 0..shop::SHOPS {
        free.send((number, Turn::Step))?;
    }
    let mut orders = orders();
    let mut began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    // What could not be sent in time is sent later: the rate is that of people, who do not wait for each other.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(name) = order else { return Ok(()) };
                let Tally { mut counts, mut took, .. } = std::mem::take(&mut *lock(&tally));
                took.sort_by(f64::total_cmp);
                let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(0.0);
                counts.phase = name;
                counts.seconds = began.elapsed().as_secs_f64();
                (counts.median, counts.slow) = (at(0.5), at(0.99));
                began = Instant::now();
                println(&counts)?;
            }
            _ = ticks.tick() => {
                let Some((number, turn)) = idle.recv().await else { return Ok(()) };
                let (api, tally, free) = (api.clone(), Arc::clone(&tally), free.clone());
                tokio::spawn(async move {
                    let sent = Instant::now();
                    let fate = send(&api, number, turn).await;
                    let next = lock(&tally).count(turn, fate, sent.elapsed());
                    // Nobody is left to hear it when it is over.
                    let _ = free.send((number, next));
                });
            }
        }
    }
}

async fn send(api: &Api<DynamicObject>, number: usize, turn: Turn) -> Fate {
    let name = shop::name(number);
    let patch = json!({ "spec": { "http": shop::routes(&name, turn.canary()) } });
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Fate::Stored,
        Err(kube::Error::Api(status)) if status.message.contains("denied the request") => {
            Fate::Refused(status.message.clone())
        }
        Err(error) => Fate::Missed(error.to_string()),
    }
}

impl Tally {
    /// Notes it, and says what comes next there.
    fn count(&mut self, turn: Turn, fate: Fate, took: Duration) -> Turn {
        let counts = &mut self.counts;
        counts.sent += 1;
        self.took.push(took.as_secs_f64() * 1000.0);
        let mut complain = |what: &str, message: String| {
            counts.complaints.entry(what.to_owned()).or_insert(message);
        };
        match (turn, fate) {
            (Turn::Typo, Fate::Refused(message)) if message.contains("canary-step: ") => {
                counts.refused += 1;
            }
            (Turn::Typo, Fate::Stored) => counts.let_through += 1,
            (_, Fate::Stored) => counts.admitted += 1,
            (_, Fate::Refused(message)) => {
                complain("refused", message);
                counts.wrongly_refused += 1;
            }
            (_, Fate::Missed(message)) => {
                complain("missed", message);
                counts.missed += 1;
                let first = *self.first_missed.get_or_insert_with(Instant::now);
                counts.missed_within = first.elapsed().as_secs_f64();
                // Tried again.
                return turn;
            }
        }
        turn.next()
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lines of the input, until its end.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn println(counts: &Counts) -> Result<(), Error> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(counts)?)?;
    Ok(out.flush()?)
}

//! The incident, live: what a swapped pair of weights does to real requests, without the gate and with it.

use std::io::{IsTerminal as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::control_plane::GATE_LABEL;
use crate::harness::{Answer, Gate, Kubectl, Result, eventually};
use crate::platform::Running;
use crate::road::Road;

const HOST: &str = "reviews.shop.example.com";

/// Requests of one look, and of one sample while the traffic is moving.
const LOOK: usize = 2_000;
const SAMPLE: usize = 80;

/// How long a change may take to reach the traffic; a second is usual.
const PUSH: Duration = Duration::from_secs(5);

/// How long traffic is watched that must not move: longer than any move took.
const WATCH: Duration = Duration::from_secs(2);

/// How far a share may be from its weight, in points: six standard deviations of a look.
const TOLERANCE: f64 = 4.0;

struct Timeline<'a> {
    started: Instant,
    running: &'a Running,
    road: Road,
    kubectl: Kubectl,
    say: &'a dyn Fn(&str),
    colours: bool,
}

/// As a test: what was said is only read where it went wrong.
pub(crate) fn goes_as_told(running: &Running) -> Result {
    let said = std::cell::RefCell::new(String::new());
    let say = |text: &str| said.borrow_mut().push_str(text);
    tell(running, &say, false).map_err(|error| {
        format!("{}\n{}", said.borrow(), error.message().unwrap_or_default()).into()
    })
}

/// For a person.
pub(crate) fn show(running: &Running) -> Result {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A reader that went away is no reason to stop.
    tell(running, &|text| drop(std::io::stdout().write_all(text.as_bytes())), colours)
}

fn tell(running: &Running, say: &dyn Fn(&str), colours: bool) -> Result {
    let kubectl = running.plane.namespace("shop", None)?;
    let road = Road::open(running, "shopper", "shop", "10.200.1.2")?;
    let timeline = Timeline { started: Instant::now(), running, road, kubectl, say, colours };
    timeline.open()?;
    timeline.without_the_gate()?;
    timeline.with_the_gate()
}

impl Timeline<'_> {
    fn open(&self) -> Result {
        (self.say)(&format!(
            "\n{}\n\nA real API server, a real istiod, a real Envoy, and reviews in two versions behind it:\n\
             v1, which everybody uses, and v2, which was finished yesterday. Shares are counted on real requests.\n\n",
            self.paint("1", "Sluicegate: the incident, live")
        ));
        for object in self.road.service("reviews", HOST) {
            self.kubectl.apply(&object)?.succeeded()?;
        }
        self.apply(100, 0)?.succeeded()?;
        self.wait_for(0.0)?;
        self.look("v1 serves everybody", 0.0)
    }

    fn without_the_gate(&self) -> Result {
        self.chapter("Without the gate");
        self.line("Somebody wants v1: 99 and v2: 1, and has it the wrong way round.");
        let applied = self.typo()?.succeeded()?;
        let took = self.wait_for(99.0)?;
        self.said(&applied);
        let took = format!("{:.1} s later v2 has nearly everybody", took.as_secs_f64());
        self.look(&self.paint("1;31", &took), 99.0)?;
        self.line("The way back: $ kubectl apply -f reviews.yaml   (v1: 100)");
        self.apply(100, 0)?.succeeded()?;
        self.wait_for(0.0)?;
        self.look("v1 again; the incident is over", 0.0)
    }

    fn with_the_gate(&self) -> Result {
        self.chapter("With the gate");
        let plane = &self.running.plane;
        let gate = Gate::start(plane, "demo")?;
        gate.registration(plane, "demo").create_documented(plane)?.wait()?;
        self.kubectl
            .run(&["label", "namespace", "shop", &format!("{GATE_LABEL}=demo")])?
            .succeeded()?;
        self.wait_until_asked()?;
        self.line(
            "`sluicegate serve` runs, registered as docs/webhook.md says. The same file again:",
        );
        let refused = self.typo()?.refused(&["denied the request", "canary-step", "99 %"])?;
        self.said(&refused);
        let (watched, most) = self.watch()?;
        if most > 0.0 {
            return Err(format!("refused, and yet {most:.1} % went to v2").into());
        }
        let still = format!("{watched} requests later nothing has moved");
        self.look(&self.paint("1;32", &still), 0.0)?;
        self.line("What was meant, as a first step:");
        self.line("$ kubectl apply -f reviews.yaml   (v1: 90, v2: 10)");
        let applied = self.apply(90, 10)?.succeeded()?;
        self.said(&applied);
        self.wait_for(10.0)?;
        self.look("a tenth tries v2", 10.0)?;
        (self.say)(&format!("\n{}\n", self.paint("1", "It went as told.")));
        Ok(())
    }

    fn typo(&self) -> Result<Answer> {
        self.line("$ kubectl apply -f reviews.yaml   (v1: 1, v2: 99)");
        self.apply(1, 99)
    }

    fn apply(&self, v1: u32, v2: u32) -> Result<Answer> {
        let to = |subset: &str, weight: u32| json!({ "destination": { "host": HOST, "subset": subset }, "weight": weight });
        let spec = json!({ "hosts": [HOST], "http": [{ "route": [to("v1", v1), to("v2", v2)] }] });
        self.kubectl.apply(&self.road.object("VirtualService", "reviews", spec))
    }

    /// Until this share of the requests, in percent, goes to v2; how long that took.
    fn wait_for(&self, share: f64) -> Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < PUSH {
            let (observed, failed) = self.observe(SAMPLE)?;
            // A sample is small, and a new service answers nobody for a moment.
            if failed == 0 && (observed - share).abs() < 8.0 && self.is_steady(share)? {
                return Ok(began.elapsed());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the traffic did not get to {share} % for v2 within {PUSH:?}").into())
    }

    fn is_steady(&self, share: f64) -> Result<bool> {
        let (observed, failed) = self.observe(SAMPLE * 4)?;
        Ok(failed == 0 && (observed - share).abs() < 8.0)
    }

    /// Watches traffic that must stay where it is: how many requests were sent, and the largest share of v2.
    fn watch(&self) -> Result<(usize, f64)> {
        let (mut sent, mut most) = (0, 0.0_f64);
        let began = Instant::now();
        while began.elapsed() < WATCH {
            let (observed, _) = self.observe(SAMPLE * 10)?;
            sent += SAMPLE * 10;
            most = most.max(observed);
        }
        Ok((sent, most))
    }

    /// The share of v2 in percent, and how many requests failed. No answer at all is a failed request.
    fn observe(&self, requests: usize) -> Result<(f64, u64)> {
        let send = self.road.send(HOST, &[], requests);
        let Ok(tally) = self.running.runtime.block_on(send) else { return Ok((0.0, 1)) };
        let [v1, v2, failed] = tally.counts();
        Ok((v2 as f64 * 100.0 / (v1 + v2).max(1) as f64, failed))
    }

    fn look(&self, text: &str, share: f64) -> Result {
        let (observed, failed) = self.observe(LOOK)?;
        let of_v2 = (observed / 5.0).round() as usize;
        let bar = format!(
            "{}{}",
            self.paint("36", &"█".repeat(20 - of_v2)),
            self.paint("33", &"▒".repeat(of_v2))
        );
        self.line(&format!("v1 {:5.1} % {bar} {observed:4.1} % v2   {text}", 100.0 - observed));
        if failed > 0 || (observed - share).abs() > TOLERANCE {
            return Err(format!(
                "{observed:.1} % to v2 and {failed} failed requests, not {share} % and none"
            )
            .into());
        }
        Ok(())
    }

    fn wait_until_asked(&self) -> Result {
        // Any gate refuses a route that leads nowhere.
        let spec = json!({ "hosts": ["probe.example.com"], "http": [{ "name": "leads-nowhere" }] });
        let probe: Value = self.road.object("VirtualService", "probe", spec);
        eventually("the API server asks the gate about shop", Duration::from_secs(20), || {
            let answer = self.kubectl.apply_with(&["--dry-run=server"], &probe)?;
            Ok(answer.stderr().contains("denied the request"))
        })
    }

    /// What kubectl answered, without the patch that it repeats in front of an error.
    fn said(&self, answer: &Answer) {
        let error = answer.stderr();
        let error = error.find("admission webhook").map_or(error, |at| &error[at..]);
        for text in [answer.stdout(), error] {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                (self.say)(&format!("            {}\n", self.paint("2", line)));
            }
        }
    }

    fn chapter(&self, text: &str) {
        (self.say)(&format!("\n{}\n", self.paint("1", text)));
    }

    fn line(&self, text: &str) {
        (self.say)(&format!("  {:5.1} s   {text}\n", self.started.elapsed().as_secs_f64()));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

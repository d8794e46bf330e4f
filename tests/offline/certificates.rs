//! Self-managed certificates: what is kept, and a make-believe cluster that lives through years of rotations in a second.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sluicegate::certs::authority::{Authority, Leaf, Signer};
use sluicegate::certs::kept::Kept;
use sluicegate::certs::plan::{self, Durations, Step, Trust};

const NAME: &str = "sluicegate.sluicegate-system.svc";
/// Some moment; nothing here looks at a clock.
const START: i64 = 1_800_000_000;
const DURATIONS: Durations = Durations {
    leaf_for: Duration::from_secs(90),
    ca_for: Duration::from_secs(400),
    settle: Duration::from_secs(SETTLE as u64),
};
const SETTLE: i64 = 6;

type Data = BTreeMap<String, Vec<u8>>;

fn names() -> Vec<String> {
    vec![NAME.to_owned()]
}

fn fresh(now: i64) -> Kept {
    Kept::default().after(Step::StartAnew, &names(), now, DURATIONS).expect("can be made")
}

fn next(kept: &Kept, now: i64, trust: impl Fn(&Authority) -> Trust) -> Step {
    plan::next(kept, &names(), now, DURATIONS, trust)
}

fn all(seconds: u64) -> impl Fn(&Authority) -> Trust {
    move |_| Trust::For(Duration::from_secs(seconds))
}

#[test]
fn what_is_kept_is_read_as_it_was_written() {
    let kept = fresh(START);
    assert_eq!(Kept::read(&kept.data()), kept);
    let both = kept.after(Step::IntroduceAuthority, &names(), START, DURATIONS).expect("a CA");
    let mut both = Kept::read(&both.data());
    both.retire_after = Some(START + 5);
    assert_eq!(Kept::read(&both.data()), both);
    assert_eq!(both.bundle.len(), 2);
    assert!(both.next.is_some() && both.good_leaf(START).is_some());
    let text = format!("{both:?}");
    assert!(!text.contains("PRIVATE"), "{text}");
}

#[test]
fn what_is_broken_costs_only_itself() {
    let kept = fresh(START);
    let good = kept.data();
    let other = fresh(START).data();
    let garbage = b"garbage".to_vec();
    let step = |data: &Data| next(&Kept::read(data), START, all(100));
    for (key, value, step_then) in [
        ("ca.key", None, Step::IntroduceAuthority),
        ("ca.key", Some(garbage.clone()), Step::IntroduceAuthority),
        ("ca.key", other.get("ca.key").cloned(), Step::IntroduceAuthority),
        ("tls.crt", Some(garbage.clone()), Step::RenewLeaf),
        ("tls.key", None, Step::RenewLeaf),
        ("tls.key", other.get("tls.key").cloned(), Step::RenewLeaf),
        ("ca.crt", Some(garbage.clone()), Step::StartAnew),
        ("ca.crt", other.get("ca.crt").cloned(), Step::StartAnew),
    ] {
        let mut data = good.clone();
        match value {
            Some(value) => data.insert(key.to_owned(), value),
            None => data.remove(key),
        };
        assert_eq!(step(&data), step_then, "{key}");
    }
    assert_eq!(step(&Data::new()), Step::StartAnew);
    assert!(matches!(step(&good), Step::Rest { .. }));
}

#[test]
fn a_secret_that_is_gone_comes_back_with_what_is_served_and_without_the_old_key() {
    let known = fresh(START);
    let mended = Kept::default().mended(Some(&known), START);
    assert_eq!((&mended.leaf, &mended.bundle), (&known.leaf, &known.bundle));
    assert_eq!((&mended.signer, &mended.next), (&None, &None));
    assert_eq!(next(&mended, START, all(100)), Step::IntroduceAuthority);
    // What is good is not mended, and what has ended mends nothing.
    let other = fresh(START);
    assert_eq!(other.clone().mended(Some(&known), START), other);
    assert_eq!(Kept::default().mended(Some(&known), START + 91), Kept::default());
}

#[test]
fn a_leaf_is_renewed_when_two_thirds_are_over_or_its_names_are_others() {
    let kept = fresh(START);
    assert!(
        matches!(next(&kept, START + 59, all(100)), Step::Rest { until } if until == START + 60)
    );
    assert_eq!(next(&kept, START + 60, all(100)), Step::RenewLeaf);
    let other = vec![NAME.to_owned(), "127.0.0.1".to_owned()];
    assert_eq!(plan::next(&kept, &other, START, DURATIONS, all(100)), Step::RenewLeaf);
    let renewed = kept.after(Step::RenewLeaf, &other, START, DURATIONS).expect("a leaf");
    let leaf = renewed.good_leaf(START).expect("is good");
    assert!(leaf.is_for(&other) && leaf.is_accepted(&renewed.bundle, "127.0.0.1", START));
    assert!(matches!(plan::next(&renewed, &other, START, DURATIONS, all(100)), Step::Rest { .. }));
}

#[test]
fn a_ca_signs_only_when_it_has_been_trusted_for_a_while() {
    let kept = fresh(START);
    let due = START + 267;
    let kept = kept.after(Step::RenewLeaf, &names(), due - 10, DURATIONS).expect("a leaf");
    assert_eq!(next(&kept, due, all(100)), Step::IntroduceAuthority);
    let kept = kept.after(Step::IntroduceAuthority, &names(), due, DURATIONS).expect("a CA");
    for trust in [Trust::Unknown, Trust::No, Trust::For(Duration::from_secs(5))] {
        assert!(matches!(next(&kept, due, |_| trust), Step::Rest { .. }), "{trust:?}");
    }
    assert_eq!(next(&kept, due, all(6)), Step::SwitchAuthority);
    let old = kept.leaf.clone().expect("a leaf");
    let kept = kept.after(Step::SwitchAuthority, &names(), due + 6, DURATIONS).expect("a leaf");
    // The old CA stays for as long as its last leaf is good.
    assert_eq!((kept.bundle.len(), kept.retire_after), (2, Some(old.validity().not_after)));
    let end = old.validity().not_after;
    let kept = kept.after(Step::RenewLeaf, &names(), end - 5, DURATIONS).expect("a leaf");
    assert!(matches!(next(&kept, end, all(100)), Step::Rest { .. }));
    assert_eq!(next(&kept, end + 1, all(100)), Step::Retire);
    let kept = kept.after(Step::Retire, &names(), end + 1, DURATIONS).expect("nothing is made");
    assert_eq!((kept.bundle.len(), kept.retire_after), (1, None));
}

#[test]
fn a_ca_that_nobody_can_be_told_of_takes_over_when_the_leaf_has_ended() {
    let mut kept = fresh(START);
    let mut steps = Vec::new();
    for now in START..START + 420 {
        let step = next(&kept, now, |_| Trust::Unknown);
        if !matches!(step, Step::Rest { .. }) {
            steps.push((now - START, step));
            kept = kept.after(step, &names(), now, DURATIONS).expect("can be made");
        }
        assert!(kept.good_leaf(now).is_some(), "{}", now - START);
    }
    // It was made at two thirds of the first one's life.
    let of_authorities = steps.iter().filter(|(_, step)| *step != Step::RenewLeaf);
    let expected =
        [(267, Step::IntroduceAuthority), (401, Step::SwitchAuthority), (402, Step::Retire)];
    assert_eq!(of_authorities.copied().collect::<Vec<_>>(), expected);
}

#[test]
fn a_replica_without_a_leaf_waits_a_little_and_one_with_a_leaf_waits_for_trust() {
    let settle = DURATIONS.settle;
    let (none, long) = (Duration::ZERO, Duration::from_secs(60));
    let takes = |served, offered, waited| plan::takes_up(served, offered, waited, settle);
    assert!(takes(None, Trust::For(none), none));
    assert!(!takes(None, Trust::No, none) && takes(None, Trust::No, plan::FIRST_WAIT));
    assert!(!takes(None, Trust::Unknown, none) && takes(None, Trust::Unknown, plan::FIRST_WAIT));
    let trusted = Some((Trust::For(long), false));
    assert!(takes(trusted, Trust::For(settle), none) && !takes(trusted, Trust::For(none), long));
    assert!(!takes(trusted, Trust::No, long));
    assert!(takes(Some((Trust::For(long), true)), Trust::No, none));
    assert!(takes(Some((Trust::No, false)), Trust::No, none));
}

#[test]
fn a_clock_that_is_an_hour_behind_takes_what_is_made_now() {
    let kept = fresh(START);
    let leaf = kept.leaf.as_ref().expect("a leaf");
    assert!(leaf.is_accepted(&kept.bundle, NAME, START - 3600));
    assert!(!leaf.is_accepted(&kept.bundle, NAME, START - 3601));
    assert!(!leaf.is_accepted(&kept.bundle, "other.svc", START));
    assert!(!leaf.is_accepted(&fresh(START).bundle, NAME, START));
}

#[test]
fn durations_that_leave_no_time_are_refused() {
    assert!(Durations::default().check().is_ok());
    assert!(DURATIONS.check().is_ok());
    let short = Durations { leaf_for: Duration::from_secs(10), ..DURATIONS };
    assert!(short.check().expect_err("too short").to_string().contains("--certs-leaf-for"));
    let long = Durations { leaf_for: Duration::from_secs(201), ..DURATIONS };
    assert!(long.check().expect_err("too long").to_string().contains("--certs-ca-for"));
}

/// What happens to the cluster besides the passing of time.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The holder dies after its write and before the next one; another replica goes on.
    HolderDies,
    /// Another replica starts anew and knows nothing.
    ReplicaDies(usize),
    /// Nobody holds the Lease for a while.
    Pause,
    /// The API server forgets the bundle, as somebody who replaces the object makes it.
    BundleLost,
    SecretDeleted,
    KeyBroken(usize),
}

struct Replica {
    served: Option<(Leaf, Authority)>,
    offered: Option<i64>,
    known: Option<Kept>,
    trusted: Vec<(Authority, i64)>,
}

impl Replica {
    fn new() -> Self {
        Self { served: None, offered: None, known: None, trusted: Vec::new() }
    }

    fn trust(&self, authority: &Authority, now: i64) -> Trust {
        let own = self.trusted.iter().find(|(own, _)| own == authority);
        own.map_or(Trust::No, |(_, since)| Trust::For(Duration::from_secs((now - since) as u64)))
    }
}

/// A Secret, a configuration, replicas that see both late, API servers that see the second late.
struct Cluster {
    now: i64,
    random: u64,
    secrets: Vec<(i64, Data, Kept)>,
    bundles: Vec<(i64, String, Vec<Authority>)>,
    /// How many of `bundles` each API server has taken in.
    servers: [usize; 2],
    replicas: Vec<Replica>,
    holder: usize,
    paused_until: i64,
    switches: usize,
    accepted: HashMap<(String, usize, i64), bool>,
}

impl Cluster {
    fn new(random: u64) -> Self {
        Self {
            now: START,
            random: random | 1,
            secrets: vec![(START, Data::new(), Kept::default())],
            bundles: vec![(START, String::new(), Vec::new())],
            servers: [0; 2],
            replicas: (0..3).map(|_| Replica::new()).collect(),
            holder: 0,
            paused_until: 0,
            switches: 0,
            accepted: HashMap::new(),
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }

    fn secret(&self) -> &(i64, Data, Kept) {
        self.secrets.last().expect("the first one stays")
    }

    fn write(&mut self, data: Data) {
        let kept = Kept::read(&data);
        self.secrets.push((self.now, data, kept));
    }

    fn announce(&mut self, bundle: String) {
        let all = Authority::all_in(bundle.as_bytes());
        self.bundles.push((self.now, bundle, all));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::HolderDies => {
                self.replicas[self.holder] = Replica::new();
                self.holder = (self.holder + 1) % self.replicas.len();
            }
            Event::ReplicaDies(which) => {
                let which = which % self.replicas.len();
                if which != self.holder {
                    self.replicas[which] = Replica::new();
                }
            }
            // A leaf has thirty seconds left when it is due.
            Event::Pause if self.now < self.paused_until + 60 => {}
            Event::Pause => self.paused_until = self.now + 15,
            Event::BundleLost => self.announce(String::new()),
            Event::SecretDeleted => self.write(Data::new()),
            Event::KeyBroken(which) => {
                let mut data = self.secret().1.clone();
                let key = data.keys().nth(which % data.len().max(1)).cloned();
                if let Some(key) = key {
                    data.insert(key, b"garbage".to_vec());
                    self.write(data);
                }
            }
        }
    }

    /// One second: everybody sees something, the holder does something.
    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        for server in 0..self.servers.len() {
            let newest = self.bundles.len() - 1;
            if self.dice(4) == 0 {
                self.servers[server] = newest;
            }
            // It takes in what is as old as that at the latest.
            let settled = self.bundles.iter().rposition(|(at, ..)| now - at >= SETTLE).unwrap_or(0);
            self.servers[server] = self.servers[server].max(settled);
        }
        for own in 0..self.replicas.len() {
            let (secret_lag, bundle_lag) = (self.dice(3) as i64, self.dice(3) as i64);
            let secret = self.secrets.iter().rev().find(|(at, ..)| now - at >= secret_lag);
            let kept = secret.map(|(.., kept)| kept.clone()).unwrap_or_default();
            let bundle = self.bundles.iter().rev().find(|(at, ..)| now - at >= bundle_lag);
            let seen = bundle.map(|(.., all)| all.clone()).unwrap_or_default();
            let replica = &mut self.replicas[own];
            replica.trusted.retain(|(own, _)| seen.contains(own));
            for authority in seen {
                if !replica.trusted.iter().any(|(own, _)| *own == authority) {
                    replica.trusted.push((authority, now));
                }
            }
            if kept.good_leaf(now).is_some() {
                replica.known = Some(kept.clone());
            }
            let (Some(leaf), Some(voucher)) = (&kept.leaf, kept.voucher()) else { continue };
            if replica.served.as_ref().is_some_and(|(own, _)| own == leaf) {
                replica.offered = None;
                continue;
            }
            let waited = now - *replica.offered.get_or_insert(now);
            let served = replica.served.as_ref();
            let served =
                served.map(|(own, by)| (replica.trust(by, now), !own.validity().contains(now)));
            let (offered, waited) =
                (replica.trust(voucher, now), Duration::from_secs(waited as u64));
            if plan::takes_up(served, offered, waited, DURATIONS.settle) {
                replica.served = Some((leaf.clone(), voucher.clone()));
            }
        }
        if now >= self.paused_until {
            self.hold();
        }
    }

    fn hold(&mut self) {
        let now = self.now;
        let holder = &self.replicas[self.holder];
        let kept = self.secret().2.clone();
        let mut mended = kept.clone().mended(holder.known.as_ref(), now);
        let step = next(&mended, now, |own| holder.trust(own, now));
        if !matches!(step, Step::Rest { .. }) || mended != kept {
            if step == Step::StartAnew {
                let seen = holder.trusted.iter().map(|(own, _)| own.clone());
                mended.bundle.extend(seen.filter(Authority::is_own));
            }
            self.switches += usize::from(step == Step::SwitchAuthority);
            let kept = mended.after(step, &names(), now, DURATIONS).expect("can be made");
            self.write(kept.data());
            self.replicas[self.holder].known = Some(kept);
            return;
        }
        let bundle = Authority::bundle(&kept.bundle);
        if self.bundles.last().is_none_or(|(_, own, _)| *own != bundle) {
            self.announce(bundle);
        }
    }

    /// Every API server goes on with every replica that serves.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let now = self.now;
        for replica in &self.replicas {
            let Some((leaf, _)) = &replica.served else { continue };
            for server in self.servers {
                let bundle = self.bundles[server].2.as_slice();
                // That no certificate has ended is looked at each time, the signatures once.
                let key = (leaf.chain_pem().to_owned(), server, now / 10);
                let is_accepted = *self
                    .accepted
                    .entry(key)
                    .or_insert_with(|| leaf.is_accepted(bundle, NAME, now));
                prop_assert!(
                    is_accepted && leaf.validity().contains(now),
                    "{} s after the start: {leaf:?}, trusted {bundle:?}",
                    now - START
                );
            }
        }
        Ok(())
    }
}

/// Lives through these events, each some seconds after the one before, and looks at every moment from the twentieth second on.
fn live(random: u64, events: &[(i64, Event)]) -> Result<Cluster, TestCaseError> {
    let mut cluster = Cluster::new(random);
    for _ in 0..20 {
        cluster.tick();
    }
    for (gap, event) in events {
        for _ in 0..*gap {
            cluster.tick();
            cluster.check()?;
        }
        cluster.happen(*event);
    }
    for _ in 0..60 {
        cluster.tick();
        cluster.check()?;
    }
    Ok(cluster)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn api_servers_accept_every_replica_at_every_moment_of_every_rotation(
        random in any::<u64>(),
        events in prop::collection::vec((1..40_i64, prop_oneof![
            Just(Event::HolderDies), (0..3_usize).prop_map(Event::ReplicaDies), Just(Event::Pause),
        ]), 40..60),
    ) {
        let cluster = live(random, &events)?;
        let lived = cluster.now - START;
        prop_assert!(cluster.switches as i64 >= lived / 400, "{} in {lived} s", cluster.switches);
    }

    #[test]
    fn a_secret_that_is_deleted_or_broken_costs_no_handshake(
        random in any::<u64>(),
        events in prop::collection::vec((25..60_i64, prop_oneof![
            Just(Event::SecretDeleted), (0..5_usize).prop_map(Event::KeyBroken), Just(Event::Pause),
        ]), 10..20),
    ) {
        live(random, &events)?;
    }

    #[test]
    fn whatever_was_lost_is_there_again_soon(
        random in any::<u64>(),
        events in prop::collection::vec((0..8_i64, prop_oneof![
            Just(Event::SecretDeleted), (0..5_usize).prop_map(Event::KeyBroken), Just(Event::BundleLost),
            Just(Event::HolderDies), (0..3_usize).prop_map(Event::ReplicaDies), Just(Event::Pause),
        ]), 1..30),
    ) {
        let mut cluster = Cluster::new(random);
        for (gap, event) in events {
            (0..gap).for_each(|_| cluster.tick());
            cluster.happen(event);
        }
        (0..45).for_each(|_| cluster.tick());
        for _ in 0..200 {
            cluster.tick();
            cluster.check()?;
        }
    }
}

#[test]
fn a_key_finds_its_ca() {
    let (a, b) =
        (Signer::generate(START, DURATIONS.ca_for), Signer::generate(START, DURATIONS.ca_for));
    let (a, b) = (a.expect("a CA"), b.expect("a CA"));
    let all = [a.authority().clone(), b.authority().clone()];
    assert_eq!(Signer::find(b.key_pem(), &all), Some(b.clone()));
    assert_eq!(Signer::find(b.key_pem(), &all[..1]), None);
    assert!(a.authority().is_own());
    let bundle = Authority::bundle(&all);
    assert_eq!(Authority::all_in(format!("{bundle}\nrubbish\n{bundle}").as_bytes()), all);
}

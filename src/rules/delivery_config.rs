use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::delivery::{
    AnalysisPlan, CanaryMetric, CanaryPlan, CanaryWebhook, PlannedCanary, Ramp, Rise, RolloutPlan,
    ThresholdRange,
};
use crate::istio::{FieldPath, Metadata};
use crate::policy::words::{list, number};
use crate::policy::{Action, Delivery, Plan, Policy, Reference, Report, Rule, Stage};
use crate::world::Kind;

// FL is Flagger 1.44.0 (files of `pkg/`), AR is Argo Rollouts 1.10.1.

/// A Canary or a Rollout holds a bad version back.
///
/// Reads: Flagger's Canary and Argo's Rollout, where Istio routes for them, and the policy's `step`. Looks up the other Canaries
/// of the namespace, and the VirtualServices that a Rollout names.
///
/// Why: Flagger and Argo Rollouts take what their CRDs store, and find out in the middle of a release what it means. Without
/// metrics a canary is promoted by the clock; with `maxWeight: 120` it keeps all users and is never promoted; a user's route in
/// `managedRoutes` is deleted. From then on each write is the controller's own, which the gate does not stop.
///
/// It speaks only of what a write adds or makes worse, never of a deletion, and never refuses the tool's own account anything.
/// Not judged are a Canary whose provider is another one than Istio and a Rollout without `trafficRouting.istio`: their shares are
/// none of Istio's. Nor are steps that are large by design: blue/green and A/B, a canary that only those behind `match` get, and
/// Flagger's promotion, which is a rolling update of the primary. What is not listed yet is not looked up.
///
/// Warned about: a Canary without metrics, or with ones that always pass or never do, and without a webhook that is asked;
/// `skipAnalysis`; a step above the policy's `step`; steps that never reach the promotion; a threshold of 0; a number that is not
/// whole; two Canaries for one workload. A Rollout without steps, or whose steps never wait; a rise between two of them above
/// `step`, the last one to 100 % included; analyses that are all `dryRun`; managed routes with the name of a user's route, or
/// beside several routes without a name.
///
/// Passes: a Canary with `stepWeight: 10`, `maxWeight: 50` and `request-success-rate` with `thresholdRange: {min: 99}`; a Rollout
/// with `[{setWeight: 20}, {pause: {}}, {setWeight: 60}, {pause: {duration: 10m}}]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct DeliveryConfig {}

impl Rule for DeliveryConfig {
    const ID: &'static str = "delivery-config";
    const ACTION: Action = Action::Warn;
    const STAGE: Stage = Stage::Delivery;
    const READS: &'static [Kind] = &[Kind::VirtualService, Kind::Canary];

    fn check_delivery(&self, case: &Delivery<'_>, report: &mut Report<'_>) {
        match case.plan {
            Plan::Canary(canary) if canary.is_istios() => of_canary(case, canary, report),
            Plan::Canary(_) => {}
            Plan::Rollout(rollout) => {
                let own = &rollout.spec.strategy.canary;
                if own.traffic_routing.istio.is_some() {
                    of_steps(case.policy, own, report);
                    of_dry_runs(own, report);
                    of_managed_routes(case, rollout, report);
                }
            }
        }
    }
}

/// So many are said; nobody reads more of them.
const MOST_RISES: usize = 64;

/// What a finding is called by, besides its place: places change when a list grows in front.
type Key<'a> = (&'a str, &'a str);

/// A finding of the text.
fn say(
    report: &mut Report<'_>,
    at: FieldPath,
    key: Key<'_>,
    severity: f64,
    what: &str,
    pass: &str,
) {
    let message = || format!("{what}\n  Passes without a warning: {pass}.");
    report.guardrail(at, message, key, severity, Vec::new());
}

fn of_canary(case: &Delivery<'_>, canary: &CanaryPlan, report: &mut Report<'_>) {
    let target = canary.spec.target_ref.name.as_str();
    // Go's decoder takes no 12.5 for an int, and a list with one such object fails as a whole.
    let mut fractions = canary.fractions().peekable();
    let is_readable = fractions.peek().is_none();
    for (at, value) in fractions {
        let what = format!(
            "{value} is no whole number: the API server stores it, and Flagger can list no Canary in the cluster any more, so that every release stands still"
        );
        let key = at.as_str().to_owned();
        let pass = format!("{} or {}", number(value.floor()), number(value.ceil()));
        say(report, at, ("fraction", &key), 0.0, &what, &pass);
    }
    of_rival(case, canary, report);
    if canary.spec.skip_analysis {
        // FL `scheduler.go` `shouldSkipAnalysis`: it does not even wait for the primary.
        let what = format!(
            "nothing judges a new version of {target}: Flagger copies it to {target}-primary at once, for all users, and goes back only if its pods do not start"
        );
        let pass = "skipAnalysis: false, with spec.analysis and metrics in it";
        let at = FieldPath::spec().field("skipAnalysis");
        return say(report, at, ("skipped", ""), 0.0, &what, pass);
    }
    let Some(analysis) = &canary.spec.analysis else { return };
    let at = FieldPath::spec().field("analysis");
    of_judges(analysis, &at, report);
    for (index, metric) in analysis.metrics.iter().enumerate() {
        of_metric(metric, at.clone().field("metrics").index(index), report);
    }
    of_thresholds(analysis, target, &at, report);
    if is_readable && analysis.is_progressive() {
        of_ramp(case.policy, analysis, target, &at, report);
    }
}

/// FL `scheduler.go` `scheduleCanaries` logs it ("Bad things will happen!") and goes on; `deployment_controller.go`.
fn of_rival(case: &Delivery<'_>, canary: &CanaryPlan, report: &mut Report<'_>) {
    let Delivery { world, review, .. } = *case;
    let target = &canary.spec.target_ref;
    if world.is_blank() || !world.knows(Kind::Canary) || target.name.is_empty() {
        return;
    }
    let Some(rival) = world.rival_of(&review.namespace, &review.name, target) else { return };
    let (other, name) = (rival.metadata.name.as_str(), target.name.as_str());
    let message = || {
        format!(
            "Canary {}/{other} has the same target, {name}: both copy it to {name}-primary, and each scales it to 0 when it is done, in the middle of the other's release\n  Passes without a warning: one Canary for each workload.",
            review.namespace
        )
    };
    let rests_on = vec![Reference::Canaries { namespace: review.namespace.clone() }];
    let path = FieldPath::spec().field("targetRef").field("name");
    report.guardrail(path, message, ("rival", other), 0.0, rests_on);
}

/// FL `scheduler.go` `runAnalysis`: without metrics and webhooks it always succeeds.
fn of_judges(analysis: &AnalysisPlan, at: &FieldPath, report: &mut Report<'_>) {
    if !analysis.metrics.is_empty() || analysis.webhooks.iter().any(CanaryWebhook::is_gate) {
        return;
    }
    let tests = analysis.webhooks.iter().filter(|own| own.is_in_background());
    let tests = tests.map(|own| own.name.clone()).take(3).collect::<Vec<_>>();
    let but = match tests.is_empty() {
        true if analysis.webhooks.is_empty() => String::new(),
        true => ", and no webhook whose answer counts".to_owned(),
        false => format!(", and {} only makes load: its answer says nothing", list(&tests)),
    };
    let what = format!(
        "there are no metrics{but}; the new version is promoted by the clock, whatever it answers"
    );
    let pass = "metrics, such as request-success-rate with thresholdRange: {min: 99}, or a webhook of type rollout, pre-rollout or confirm-promotion";
    say(report, at.clone().field("metrics"), ("judge", ""), 0.0, &what, pass);
}

/// FL `scheduler_metrics.go` `runBuiltinMetricChecks`, `runMetricChecks`.
fn of_metric(metric: &CanaryMetric, at: FieldPath, report: &mut Report<'_>) {
    let name = metric.name.as_str();
    let is_rate = name == "request-success-rate";
    let is_duration = name == "request-duration";
    let good = if is_rate { "thresholdRange: {min: 99}" } else { "thresholdRange: {max: 500}" };
    let is_own = metric.template_ref.is_some() || !metric.query.is_empty();
    let threshold = metric.threshold.unwrap_or_default();
    let (field, what) = match metric.threshold_range {
        _ if !is_rate && !is_duration && !is_own => (
            "name",
            "Flagger knows no such metric, and there is no templateRef: each check fails, and every release is rolled back".to_owned(),
        ),
        Some(ThresholdRange { min: None, max: None }) => {
            ("thresholdRange", format!("{name} has neither min nor max: any value passes"))
        }
        Some(ThresholdRange { min, max })
            if is_rate
                && min.is_none_or(|min| min <= 0.0)
                && max.is_none_or(|max| max >= 100.0) =>
        {
            ("thresholdRange", format!("any {name} from 0 % to 100 % passes"))
        }
        Some(ThresholdRange { min: None, max: Some(max) }) if is_rate => (
            "thresholdRange",
            format!("the limit is turned round: a {name} above {} % fails, and below it passes", number(max)),
        ),
        Some(ThresholdRange { min: Some(min), max: None }) if is_duration && min > 0.0 => (
            "thresholdRange",
            format!("the limit is turned round: a {name} below {} ms fails, and above it passes", number(min)),
        ),
        None if is_rate && threshold <= 0.0 => {
            ("thresholdRange", format!("{name} has no limit: 0 % passes"))
        }
        None if is_duration && threshold <= 0.0 => (
            "thresholdRange",
            format!("{name} has no limit, which counts as 0 ms: each check fails, and every release is rolled back"),
        ),
        _ => return,
    };
    let pass = match field {
        "name" => {
            "templateRef with the name of a MetricTemplate, or request-success-rate or request-duration as the name"
        }
        _ => good,
    };
    say(report, at.field(field), (name, field), 0.0, &what, pass);
}

fn of_thresholds(analysis: &AnalysisPlan, target: &str, at: &FieldPath, report: &mut Report<'_>) {
    let given = |value: Option<f64>| value.filter(|&value| value <= 0.0).map(number);
    let mut one = |field: &str, what: &str, pass: &str| {
        say(report, at.clone().field(field), ("threshold", field), 0.0, what, pass);
    };
    // FL `canary.go` `GetAnalysisThreshold`.
    if let Some(value) = given(analysis.threshold) {
        let what = format!(
            "{value} counts as 1: a single failed check, also for lack of requests, rolls the release back"
        );
        one(
            "threshold",
            &what,
            "threshold: 1 where that is meant, or as many failed checks as a release may have",
        );
    }
    // FL `deployment_ready.go` `isDeploymentReady`: so many percent of the pods, of which 0 is none.
    if let Some(value) = given(analysis.canary_ready_threshold) {
        let what = format!(
            "{value} % of the canary's pods have to be available before it gets requests: it gets them with none, too, and its share fails"
        );
        one(
            "canaryReadyThreshold",
            &what,
            "no such field, which means 100, or what can carry the largest step",
        );
    }
    if let Some(value) = given(analysis.primary_ready_threshold) {
        let what = format!(
            "{value} % of the pods of {target}-primary have to be available: promotion gives all requests back to it with none, too"
        );
        one(
            "primaryReadyThreshold",
            &what,
            "no such field, which means 100, or what can carry everything",
        );
    }
    // FL `scheduler.go` `runPromotionTrafficShift`.
    if let Some(value) = analysis.step_weight_promotion.filter(|&value| value < 0.0) {
        let what = format!(
            "{} points each time lead away from {target}-primary, and the promotion never ends",
            number(value)
        );
        one("stepWeightPromotion", &what, "a number above 0, or no such field for one step");
    }
}

fn of_ramp(
    policy: &Policy,
    analysis: &AnalysisPlan,
    target: &str,
    at: &FieldPath,
    report: &mut Report<'_>,
) {
    let Ramp { rises, is_promoted } = analysis.ramp();
    let path = |name: &str| at.clone().field(name);
    let steps = &analysis.step_weights;
    let has_list = !steps.is_empty() && analysis.step_weight.unwrap_or_default() <= 0.0;
    let end = rises.last().map_or(0, |&(_, to)| to);
    // FL `scheduler.go` `advanceCanary`: it neither steps nor promotes where the next step is not above 0.
    if !is_promoted && has_list {
        let next = steps.get(rises.len()).copied().unwrap_or_default();
        let what = format!(
            "the list comes to {} behind {end} %: Flagger takes no step that does not rise, and the release stays at {end} % until a check fails",
            number(next)
        );
        say(report, path("stepWeights"), ("stuck", ""), 0.0, &what, &rising(steps));
    } else if !is_promoted && end == 0 {
        let steps = match analysis.step_weight {
            Some(step) => format!("steps of {} % lead nowhere", number(step)),
            None => "there are no steps".to_owned(),
        };
        let what =
            format!("{steps}: the canary stays at 0 %, and a release of {target} never ends");
        let pass = "stepWeight: 10 with maxWeight: 50, or iterations for blue/green";
        say(report, path("stepWeight"), ("stuck", ""), 0.0, &what, pass);
    } else if !is_promoted {
        // FL `scheduler.go` `runCanary`: 100 % is the most, and promotion waits for more.
        let what = format!(
            "promotion waits for {} %, and 100 % is the most: the canary keeps all users, and {target}-primary is never updated",
            number(analysis.max_weight.unwrap_or_default())
        );
        say(report, path("maxWeight"), ("stuck", ""), 0.0, &what, "maxWeight: 50");
    } else if has_list && end == 0 {
        let what = format!(
            "the last weight is that at which a canary is promoted: with {} that is before it got a single request",
            number(steps.last().copied().unwrap_or_default())
        );
        say(report, path("stepWeights"), ("stuck", ""), 0.0, &what, &rising(steps));
    }
    // Only those who match get there.
    if !analysis.r#match.is_empty() {
        return;
    }
    let limit = |from: f64| policy.spec().step.limit(from);
    let mut large = rises.iter().enumerate();
    let large = large.find(|(_, (from, to))| *to as f64 > limit(*from as f64) + 1e-9);
    if let Some((index, &(from, to))) = large {
        let (from, to) = (from as f64, to as f64);
        let most = limit(from);
        let (field, pass) = match has_list {
            true => (
                path("stepWeights").index(index),
                format!("an entry of at most {} there", number(most)),
            ),
            false => (path("stepWeight"), format!("stepWeight: {} or less", number(most - from))),
        };
        let what = format!(
            "the canary goes from {} % to {} % in one step; {}",
            number(from),
            number(to),
            policy.limit_in_words(from)
        );
        say(report, field, ("rise", ""), to - from, &what, &pass);
    }
}

/// The same steps in order.
fn rising(steps: &[f64]) -> String {
    const MOST: usize = 10;
    let mut sorted = steps.iter().copied().filter(|&own| own > 0.0).collect::<Vec<_>>();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    if sorted.is_empty() || sorted.len() > MOST {
        return "weights above 0, each larger than the one before".to_owned();
    }
    let said = sorted.into_iter().map(number).collect::<Vec<_>>();
    format!("stepWeights: [{}]", said.join(", "))
}

fn of_steps(policy: &Policy, own: &PlannedCanary, report: &mut Report<'_>) {
    let path = FieldPath::spec().field("strategy").field("canary").field("steps");
    let pass = "[{setWeight: 20}, {pause: {}}, {setWeight: 60}, {pause: {}}]";
    // AR `rollout/trafficrouting.go` `reconcileTrafficRouting`: no weight is written, the labels of Service or subset are.
    if own.steps.is_empty() {
        let what = "there are no steps: as soon as its pods are available all users get the new version, in one write";
        return say(report, path, ("steps", ""), 1.0, what, pass);
    }
    // AR `rollout/analysis.go` `reconcileAnalysisRuns`: what is fully promoted is not analysed any further.
    let beside = match own.analyses().next() {
        Some(_) => "the analysis beside them ends with the last one",
        None => "there is no pause, analysis, experiment or plugin",
    };
    if !own.steps.iter().any(|step| step.waits()) {
        let what = format!(
            "no step waits: {beside}, and all users get the new version as fast as its pods start"
        );
        return say(report, path, ("steps", ""), 0.0, &what, pass);
    }
    let limit = |from: f64| policy.spec().step.limit(from);
    let large = own.rises().into_iter().filter(|own| own.to > limit(own.from) + 1e-9);
    for Rise { from, to, step } in large.take(MOST_RISES) {
        let at = match step {
            Some(step) => path.clone().index(step).field("setWeight"),
            None => path.clone(),
        };
        let (said, then) = (number(from), number(to));
        let what = match step {
            None if from <= 0.0 => "the canary has no share at the last step that waits, and behind it all users get the new version at once".to_owned(),
            None => format!("behind the last step that waits the canary goes from {said} % to 100 % at once"),
            Some(_) => format!("the canary goes from {said} % to {then} % before a step waits"),
        };
        let what = format!("{what}; {}", policy.limit_in_words(from));
        let pass = format!(
            "{{setWeight: {}}} and a step that waits in between, such as {{pause: {{duration: 10m}}}}",
            number(limit(from))
        );
        say(report, at, ("rise", ""), to - from, &what, &pass);
    }
}

/// AR `analysis/analysis.go`: what runs dry fails nothing. Beside one that counts it is how a new metric is tried.
fn of_dry_runs(own: &PlannedCanary, report: &mut Report<'_>) {
    let all = own.analyses().map(|(step, own)| Some((step, own.dry_of_all()?, own)));
    let Some(all) = all.collect::<Option<Vec<_>>>() else { return };
    // An experiment has analyses of its own.
    if own.steps.iter().any(|step| step.experiment.is_some()) {
        return;
    }
    let Some((step, index, analysis)) = all.first() else { return };
    let at = FieldPath::spec().field("strategy").field("canary");
    let at = match step {
        None => at.field("analysis"),
        Some(step) => at.field("steps").index(*step).field("analysis"),
    };
    let name = analysis.dry_run.get(*index).map_or("", |own| own.metric_name.as_str());
    let what = format!(
        "{name:?} takes in every metric: what the analysis finds is noted, and stops no bad version"
    );
    let pass = "dryRun with the names of the metrics that shall not count yet, or none";
    say(
        report,
        at.field("dryRun").index(*index).field("metricName"),
        ("dry", ""),
        0.0,
        &what,
        pass,
    );
}

fn of_managed_routes(case: &Delivery<'_>, rollout: &RolloutPlan, report: &mut Report<'_>) {
    let Delivery { world, review, .. } = *case;
    let own = &rollout.spec.strategy.canary;
    let managed = &own.traffic_routing.managed_routes;
    if managed.is_empty() {
        return;
    }
    let path = FieldPath::spec().field("strategy").field("canary").field("trafficRouting");
    let path = path.field("managedRoutes");
    let istio = own.traffic_routing.istio.iter();
    let weighed = istio.flat_map(|own| own.virtual_services()).flat_map(|own| &own.routes);
    let weighed = weighed.map(String::as_str).collect::<BTreeSet<_>>();
    let can_look = !world.is_blank() && world.knows(Kind::VirtualService);
    let named = rollout.virtual_services(&review.namespace).filter(|_| can_look);
    let stored = named.collect::<BTreeSet<_>>();
    let stored = stored.into_iter().filter_map(|(at, name)| world.virtual_service(at, name));
    let stored = stored.collect::<Vec<_>>();
    let routes = stored.iter().flat_map(|own| own.spec.http.iter().map(move |route| (route, own)));
    let users = routes.filter(|(route, _)| !own.is_made(route));
    let users = users.map(|(route, own)| (route.name.as_str(), own)).collect::<BTreeMap<_, _>>();
    // AR `rollout/trafficrouting/istio/istio.go` `RemoveManagedRoutes`, which `reconcileTrafficRouting` calls also where no
    // release is under way: it takes away whatever bears such a name.
    for (index, route) in managed.iter().enumerate().filter(|(_, own)| !own.name.is_empty()) {
        let name = route.name.as_str();
        let (whose, rests_on) = match (weighed.contains(name), users.get(name)) {
            (true, _) => ("the route whose weights it writes".to_owned(), Vec::new()),
            (false, Some(stored)) => {
                let Metadata { namespace, name, .. } = &stored.metadata;
                let whose = format!("a route of your own in VirtualService {namespace}/{name}");
                (whose, vec![Reference::VirtualServices { namespace: namespace.clone() }])
            }
            (false, None) => continue,
        };
        let message = || {
            format!(
                "{name} is {whose}: the controller deletes each managed route whenever no release is under way, and its requests get what other routes say, or 404\n  Passes without a warning: only names of routes that the controller makes itself, by setHeaderRoute or setMirrorRoute."
            )
        };
        report.guardrail(
            path.clone().index(index).field("name"),
            message,
            ("managed", name),
            0.0,
            rests_on,
        );
    }
    // AR `istio.go` `getOrderedVirtualServiceRoutes` takes every route without a name for every other one (AR#2769).
    for stored in stored {
        let unnamed = stored.spec.http.iter().filter(|route| route.name.is_empty()).count();
        let full = format!("{}/{}", stored.metadata.namespace, stored.metadata.name);
        if unnamed < 2 {
            continue;
        }
        let message = || {
            format!(
                "VirtualService {full} has {unnamed} http routes without a name: beside managed routes the controller writes {} of them the first time, then the square of that, until the object is too large to be stored\n  Passes without a warning: a name for each route of that VirtualService.",
                unnamed * unnamed
            )
        };
        let namespace = stored.metadata.namespace.clone();
        let rests_on = vec![Reference::VirtualServices { namespace }];
        report.guardrail(path.clone(), message, ("unnamed", &*full), unnamed as f64, rests_on);
    }
}

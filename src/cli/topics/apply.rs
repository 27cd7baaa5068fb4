//! Does what is planned.
//!
//! Promises: what cannot be done keeps nothing else from being done, and is told with its reason; keys are moved only
//! where that was asked for. Must not: decide what is to be done. Fails: when no broker answers.

use crate::cli::topics::plan::{PlannedStep, StepOutcome, TopicPlan, TopicStep};
use crate::error::{Error, ErrorKind};
use crate::publish::kafka::config::ProducerConfig;
use crate::publish::kafka::topic_creation::{
    Changes, Rehearsal, create_topics, raise_partitions, set,
};
use crate::record::topic_rules::TopicRules;

/// What to do about a step by which keys move to other partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnMovingKeys {
    /// It is left.
    Refuse,
    /// It is done.
    Move,
}

/// Does all steps that can be done; each has its outcome then.
pub(super) async fn apply(
    producer: &ProducerConfig,
    rules: &TopicRules,
    on_moving_keys: OnMovingKeys,
    plans: &mut [TopicPlan],
) -> Result<(), Error> {
    let is_missing = |plan: &&TopicPlan| plan.steps.iter().any(|planned| is_create(&planned.step));
    let missing: Vec<&str> =
        plans.iter().filter(is_missing).map(|plan| plan.topic.as_str()).collect();
    let mut made = create_topics(producer, rules, &missing, Rehearsal::Off).await?;
    for plan in plans {
        create(plan, &mut made);
        settle(producer, plan).await?;
        partitions(producer, on_moving_keys, plan).await?;
        let is_undone = |planned: &PlannedStep| planned.outcome == StepOutcome::Left;
        if plan.exit_code.is_none() && plan.steps.iter().any(is_undone) {
            plan.exit_code = Some(ErrorKind::Internal.exit_code());
        }
    }
    Ok(())
}

fn is_create(step: &TopicStep) -> bool {
    matches!(step, TopicStep::Create { .. })
}

fn create(plan: &mut TopicPlan, made: &mut Changes) {
    let Some(outcome) = made.remove(&plan.topic) else { return };
    for planned in plan.steps.iter_mut().filter(|planned| is_create(&planned.step)) {
        plan.exit_code = note(planned, &outcome);
    }
}

/// All settings of a topic go in one request, as what is not named in it is taken away.
async fn settle(producer: &ProducerConfig, plan: &mut TopicPlan) -> Result<(), Error> {
    let mut settings = plan.own.clone();
    let changed = plan.steps.iter().filter_map(|planned| match &planned.step {
        TopicStep::Set { name, to, .. } => Some((name.clone(), to.clone())),
        _ => None,
    });
    let changed: Vec<(String, String)> = changed.collect();
    if changed.is_empty() {
        return Ok(());
    }
    settings.extend(changed);
    let outcome = answered(set(producer, &plan.topic, &settings).await)?;
    for planned in &mut plan.steps {
        if let TopicStep::Set { .. } = planned.step {
            plan.exit_code = note(planned, &outcome);
        }
    }
    Ok(())
}

async fn partitions(
    producer: &ProducerConfig,
    on_moving_keys: OnMovingKeys,
    plan: &mut TopicPlan,
) -> Result<(), Error> {
    if on_moving_keys == OnMovingKeys::Refuse {
        return Ok(());
    }
    for planned in &mut plan.steps {
        if let TopicStep::RaisePartitions { to, .. } = planned.step {
            let outcome = answered(raise_partitions(producer, &plan.topic, to).await)?;
            plan.exit_code = plan.exit_code.or(note(planned, &outcome));
        }
    }
    Ok(())
}

/// What the brokers said of it, unless they said nothing.
fn answered(outcome: Result<(), Error>) -> Result<Result<(), Error>, Error> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::TopicUnavailable => Err(error),
        outcome => Ok(outcome),
    }
}

/// Takes note of what became of a step: the exit code of its failure.
fn note(planned: &mut PlannedStep, outcome: &Result<(), Error>) -> Option<u8> {
    match outcome {
        Ok(()) => {
            (planned.outcome, planned.remedy) = (StepOutcome::Done, None);
            None
        }
        Err(error) => {
            planned.outcome = StepOutcome::Failed;
            let remedy = error.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default();
            planned.remedy = Some(format!("{}{remedy}", error.message()));
            Some(error.kind().exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_keeps_its_reason() {
        let step = TopicStep::RaisePartitions { from: 1, to: 2 };
        let mut planned =
            PlannedStep { step, outcome: StepOutcome::Left, remedy: Some("a flag".to_owned()) };
        let error = Error::new(ErrorKind::TopicUnavailable, "no").with_remedy("ask");
        assert_eq!(note(&mut planned, &Err(error)), Some(5));
        assert_eq!(
            (planned.outcome, planned.remedy.as_deref()),
            (StepOutcome::Failed, Some("no; ask"))
        );
        assert_eq!(note(&mut planned, &Ok(())), None);
        assert_eq!((planned.outcome, planned.remedy.as_deref()), (StepOutcome::Done, None));
    }
}

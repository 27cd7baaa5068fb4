//! What would be done about topics.
//!
//! Promises: the same topics and rules give the same plan; a setting that nobody has named is left as it is.
//! Must not: ask or change anything.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::error::Error;
use crate::legible;
use crate::publish::kafka::topic_check::{ExistingTopics, ToldSettings, TopicLayout};
use crate::record::topic_rules::{TopicRules, TopicShape};

/// Settings that are shown of each topic that tells them.
const SHOWN: [&str; 3] = ["min.insync.replicas", "max.message.bytes", "retention.ms"];
const NAME_CHARACTERS: usize = 249;
const WORDS_CHARACTERS: usize = 2_000;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct TopicsAnswer<'a> {
    pub(super) topics: &'a [TopicPlan],
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TopicVerdict {
    /// It is as it is to be.
    Ok,
    /// It is not there.
    Missing,
    /// It is there, and otherwise than it is to be.
    Differs,
    /// It is there, and cannot be used or looked at.
    Unusable,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(super) enum TopicStep {
    /// Make the topic.
    Create {
        /// With so many partitions; none as the brokers do.
        partitions: Option<u32>,
        /// And so many copies.
        replication_factor: Option<u16>,
        /// And these settings.
        config: BTreeMap<String, String>,
    },
    /// Give it a setting.
    Set { name: String, from: Option<String>, to: String },
    /// Give it more partitions, by which keys move.
    RaisePartitions { from: u32, to: u32 },
    /// Nobody can: a topic never has fewer partitions.
    LowerPartitions { from: u32, to: u32 },
    /// By another tool.
    ChangeCopies { from: usize, to: u16 },
}

/// What has become of a step, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StepOutcome {
    /// `apply` does it.
    Planned,
    /// It is done.
    Done,
    /// It was not tried: somebody has to say so, or do it by another tool.
    Left,
    /// The brokers did not do it.
    Failed,
}

#[derive(Debug, Serialize)]
pub(super) struct PlannedStep {
    #[serde(flatten)]
    pub(super) step: TopicStep,
    pub(super) outcome: StepOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// A topic, and what is to be done about it.
#[derive(Debug, Serialize)]
pub(super) struct TopicPlan {
    pub(super) topic: String,
    pub(super) verdict: TopicVerdict,
    pub(super) partitions: Option<u32>,
    pub(super) replication_factor: Option<usize>,
    /// Those that people ask for first, as the topic tells them.
    pub(super) config: BTreeMap<String, String>,
    pub(super) steps: Vec<PlannedStep>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
    /// What it was given itself: to be kept when a setting is changed.
    #[serde(skip)]
    pub(super) own: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) exit_code: Option<u8>,
}

impl TopicPlan {
    /// Why the command has not ended well.
    pub(super) fn exit_code(&self) -> Option<ExitCode> {
        self.exit_code.map(ExitCode::from)
    }

    fn new(topic: &str, verdict: TopicVerdict) -> Self {
        Self {
            topic: topic.to_owned(),
            verdict,
            partitions: None,
            replication_factor: None,
            config: BTreeMap::new(),
            steps: Vec::new(),
            trouble: None,
            own: BTreeMap::new(),
            exit_code: None,
        }
    }

    fn missing(topic: &str, shape: TopicShape) -> Self {
        let step = TopicStep::Create {
            partitions: shape.partitions.map(u32::from),
            replication_factor: shape.copies.map(u16::from),
            config: shape.settings,
        };
        Self { steps: vec![planned(step)], ..Self::new(topic, TopicVerdict::Missing) }
    }

    fn unusable(error: &Error) -> Self {
        let plan = Self::new("", TopicVerdict::Unusable);
        Self { trouble: Some(error.message().to_owned()), ..plan }
    }

    fn there(
        topic: &str,
        layout: TopicLayout,
        settings: Option<&ToldSettings>,
        shape: &TopicShape,
    ) -> Self {
        let none = ToldSettings::new();
        let told = settings.unwrap_or(&none);
        let value = |name: &str| told.get(name)?.value.clone();
        let steps = steps(layout, told, shape);
        let is_silent = told.is_empty() && !shape.settings.is_empty();
        let verdict = match (steps.is_empty(), is_silent) {
            (true, false) => TopicVerdict::Ok,
            (false, _) => TopicVerdict::Differs,
            (true, true) => TopicVerdict::Unusable,
        };
        let own = told.iter().filter(|(_, setting)| setting.is_own);
        Self {
            partitions: Some(layout.partitions.get()),
            replication_factor: Some(layout.copies),
            config: SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect(),
            steps: steps.into_iter().map(planned).collect(),
            trouble: is_silent.then(|| {
                "it does not tell its settings: grant DescribeConfigs, so that they can be compared".to_owned()
            }),
            own: own.filter_map(|(name, set)| Some((name.clone(), set.value.clone()?))).collect(),
            ..Self::new(topic, verdict)
        }
    }
}

fn planned(step: TopicStep) -> PlannedStep {
    let remedy = match &step {
        TopicStep::Create { .. } | TopicStep::Set { .. } => None,
        TopicStep::RaisePartitions { .. } => Some(
            "keys would move to other partitions, and the order of aggregates across the change be lost: \
             `topics apply --move-keys` does it all the same",
        ),
        TopicStep::LowerPartitions { .. } => {
            Some("Kafka takes no partition away: correct the file, or use another topic")
        }
        TopicStep::ChangeCopies { .. } => {
            Some("kafka-reassign-partitions.sh changes the number of copies")
        }
    };
    let outcome = match remedy {
        None => StepOutcome::Planned,
        Some(_) => StepOutcome::Left,
    };
    PlannedStep { step, outcome, remedy: remedy.map(str::to_owned) }
}

/// The plans of all topics, by name.
pub(super) fn of(
    rules: &TopicRules,
    existing: &ExistingTopics,
    settings: &BTreeMap<String, ToldSettings>,
) -> Vec<TopicPlan> {
    let missing =
        existing.missing.iter().map(|topic| TopicPlan::missing(topic, rules.shape(topic)));
    let ready = existing.ready.iter().map(|(topic, layout)| {
        TopicPlan::there(topic, *layout, settings.get(topic), &rules.shape(topic))
    });
    let mut plans: Vec<TopicPlan> = missing.chain(ready).collect();
    plans.sort_by(|one, other| one.topic.cmp(&other.topic));
    plans.extend(existing.unusable.iter().map(TopicPlan::unusable));
    plans
}

fn steps(layout: TopicLayout, told: &ToldSettings, shape: &TopicShape) -> Vec<TopicStep> {
    let mut steps = Vec::new();
    let from = layout.partitions.get();
    match shape.partitions.map(u32::from) {
        Some(to) if to > from => steps.push(TopicStep::RaisePartitions { from, to }),
        Some(to) if to < from => steps.push(TopicStep::LowerPartitions { from, to }),
        Some(_) | None => {}
    }
    if let Some(to) = shape.copies.map(u16::from).filter(|to| usize::from(*to) != layout.copies) {
        steps.push(TopicStep::ChangeCopies { from: layout.copies, to });
    }
    if told.is_empty() {
        return steps;
    }
    for (name, to) in &shape.settings {
        let from = told.get(name).and_then(|setting| setting.value.clone());
        if from.as_ref() != Some(to) {
            steps.push(TopicStep::Set { name: name.clone(), from, to: to.clone() });
        }
    }
    steps
}

impl PlannedStep {
    fn words(&self) -> String {
        let or_default = |count: Option<u32>| {
            count.map_or_else(|| "the brokers' number of".to_owned(), |count| count.to_string())
        };
        match &self.step {
            TopicStep::Create { partitions, replication_factor, config } => {
                let config: String =
                    config.iter().map(|(name, value)| format!(", {name} = {value}")).collect();
                let copies = or_default(replication_factor.map(u32::from));
                format!("make it: {} partitions, {copies} copies{config}", or_default(*partitions))
            }
            TopicStep::Set { name, from, to } => {
                format!("set {name} = {to} (it is {})", from.as_deref().unwrap_or("not set"))
            }
            TopicStep::RaisePartitions { from, to } => {
                format!("raise partitions from {from} to {to}")
            }
            TopicStep::LowerPartitions { from, to } => {
                format!("it has {from} partitions, and the file says {to}")
            }
            TopicStep::ChangeCopies { from, to } => {
                format!("it has {from} copies, and the file says {to}")
            }
        }
    }

    fn sign(&self) -> &'static str {
        match self.outcome {
            StepOutcome::Planned => "+",
            StepOutcome::Done => "\u{2714}",
            StepOutcome::Left => "!",
            StepOutcome::Failed => "\u{2718}",
        }
    }
}

/// A table, below each topic what is to be done.
pub(super) fn list(plans: &[TopicPlan]) -> String {
    let mut text = format!(
        "{:<9}  {:>10}  {:>6}  {:>7}  {:>17}  {:>12}  topic\n",
        "verdict", "partitions", "copies", "in-step", "max.message.bytes", "retention.ms"
    );
    if plans.is_empty() {
        return "no topic is known: no event waits or is retained, and the file names none\n"
            .to_owned();
    }
    for plan in plans {
        let [in_step, limit, retention] =
            SHOWN.map(|name| plan.config.get(name).map_or("-", String::as_str));
        let number =
            |count: Option<usize>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let verdict = match plan.verdict {
            TopicVerdict::Ok => "ok",
            TopicVerdict::Missing => "missing",
            TopicVerdict::Differs => "differs",
            TopicVerdict::Unusable => "unusable",
        };
        let name = legible::shown(&plan.topic, NAME_CHARACTERS);
        let (partitions, copies) =
            (number(plan.partitions.map(|count| count as usize)), number(plan.replication_factor));
        writeln!(text, "{verdict:<9}  {partitions:>10}  {copies:>6}  {in_step:>7}  {limit:>17}  {retention:>12}  {name}")
            .expect("text takes text");
        if let Some(trouble) = &plan.trouble {
            writeln!(text, "    {}", legible::shown(trouble, WORDS_CHARACTERS))
                .expect("text takes text");
        }
        for step in &plan.steps {
            writeln!(text, "  {} {}", step.sign(), legible::shown(&step.words(), WORDS_CHARACTERS))
                .expect("text takes text");
            if let Some(remedy) = &step.remedy {
                writeln!(text, "    {}", legible::shown(remedy, WORDS_CHARACTERS))
                    .expect("text takes text");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use super::*;
    use crate::publish::kafka::topic_check::ToldSetting;

    fn layout(partitions: u32, copies: usize) -> TopicLayout {
        TopicLayout { partitions: NonZeroU32::new(partitions).expect("some"), copies }
    }

    fn shape(partitions: u32, copies: u16, settings: &[(&str, &str)]) -> TopicShape {
        TopicShape {
            partitions: NonZeroU32::new(partitions),
            copies: NonZeroU16::new(copies),
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn told(settings: &[(&str, &str, bool)]) -> ToldSettings {
        let setting = |value: &str, is_own| ToldSetting { value: Some(value.to_owned()), is_own };
        settings
            .iter()
            .map(|(name, value, own)| ((*name).to_owned(), setting(value, *own)))
            .collect()
    }

    #[test]
    fn only_what_differs_is_to_be_done() {
        let told = told(&[("retention.ms", "1000", true), ("min.insync.replicas", "1", false)]);
        let plan = |layout, shape: &TopicShape| TopicPlan::there("t", layout, Some(&told), shape);
        let same = shape(3, 2, &[("retention.ms", "1000"), ("min.insync.replicas", "1")]);
        assert_eq!(plan(layout(3, 2), &same).verdict, TopicVerdict::Ok);
        assert_eq!(
            plan(layout(9, 1), &TopicShape::default()).verdict,
            TopicVerdict::Ok,
            "nobody said"
        );
        let other = plan(layout(3, 1), &shape(6, 3, &[("min.insync.replicas", "2")]));
        let steps: Vec<_> = other.steps.iter().map(|planned| planned.step.clone()).collect();
        assert_eq!(
            steps,
            [
                TopicStep::RaisePartitions { from: 3, to: 6 },
                TopicStep::ChangeCopies { from: 1, to: 3 },
                TopicStep::Set {
                    name: "min.insync.replicas".to_owned(),
                    from: Some("1".to_owned()),
                    to: "2".to_owned()
                },
            ]
        );
        assert_eq!(other.own, BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]));
        let fewer = plan(layout(6, 2), &shape(3, 2, &[]));
        assert_eq!(fewer.steps[0].step, TopicStep::LowerPartitions { from: 6, to: 3 });
        assert_eq!(fewer.steps[0].outcome, StepOutcome::Left);
    }

    #[test]
    fn a_topic_that_keeps_its_settings_is_not_called_well() {
        let silent = |shape: &TopicShape| TopicPlan::there("t", layout(3, 1), None, shape);
        assert_eq!(silent(&shape(3, 1, &[("a", "b")])).verdict, TopicVerdict::Unusable);
        assert_eq!(silent(&shape(3, 1, &[])).verdict, TopicVerdict::Ok);
    }

    #[test]
    fn the_list_says_what_would_be_done() {
        let missing = TopicPlan::missing("t", shape(6, 3, &[("retention.ms", "1")]));
        let open = TopicPlan::missing("u", TopicShape::default());
        let raise = TopicPlan::there("v", layout(1, 1), None, &shape(2, 1, &[]));
        let said = list(&[missing, open, raise]);
        for words in [
            "+ make it: 6 partitions, 3 copies, retention.ms = 1",
            "+ make it: the brokers' number of partitions",
            "! raise partitions from 1 to 2",
            "--move-keys",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}

//! The audit of a topic after the fact: what `drain` does at its end and the command `verify` again.
//!
//! Promises: reads every record of the run's part of the topic once. Must not: need the database.
//! Fails: when the topic cannot be read, or the audit finds a fault.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::message::Message;

use crate::audit::auditor::{RunAuditor, Sighting};
use crate::audit::manifest::Manifest;
use crate::audit::topic::{PartitionReader, Topic};
use crate::failure::Broken;
use crate::measure::clock::Stamp;
use crate::output::{self, OutputFormat};
use postrider_testkit::audit::Verdict;

/// How long the topic may stand still before what is not there is missing.
const LATE_LIMIT: Duration = Duration::from_secs(3);

/// How long to wait before looking at the topic's end again.
const PAUSE: Duration = Duration::from_millis(100);

/// The first and the last stamp of a run's records.
pub(crate) type Stamps = (Stamp, Stamp);

/// What to audit again.
#[derive(Clone, Debug)]
pub(crate) struct VerifyPlan {
    /// Folder of a run or drain.
    pub(crate) run: PathBuf,
    /// Kafka bootstrap servers.
    pub(crate) brokers: String,
    /// The topic, when it is not the one of the run.
    pub(crate) topic: Option<String>,
}

/// Does the command `verify`.
///
/// # Errors
/// As the module says.
pub(crate) fn verify(plan: &VerifyPlan, form: OutputFormat) -> Result<()> {
    let manifest = Manifest::read(&plan.run)?;
    let name = plan.topic.as_ref().unwrap_or(&manifest.topic);
    let topic = Topic::open_existing(&plan.brokers, name)?;
    if topic.partitions() as usize != manifest.from.len() {
        bail!(
            "the topic {name} has {} partitions and the run saw {}; was it created again?",
            topic.partitions(),
            manifest.from.len()
        );
    }
    let mut audit = TopicAudit::new(&topic, &manifest)?;
    audit.read_to_end()?;
    let verdict = audit.verdict(&manifest);
    if form == OutputFormat::Json {
        output::data(&serde_json::to_string_pretty(&verdict).context("no JSON")?);
    } else {
        output::data(&verdict.to_string());
    }
    if !verdict.holds() {
        bail!(Broken(format!("the audit found a fault: {}", verdict)));
    }
    Ok(())
}

/// The audit of a run's part of a topic.
pub(crate) struct TopicAudit<'a> {
    topic: &'a Topic,
    reader: PartitionReader,
    auditor: RunAuditor,
    /// The first and the last stamp of what was delivered.
    pub(crate) stamps: Option<Stamps>,
}

impl<'a> TopicAudit<'a> {
    /// An audit from where the topic stood before the run.
    ///
    /// # Errors
    /// When no consumer can be made.
    pub(crate) fn new(topic: &'a Topic, manifest: &Manifest) -> Result<Self> {
        let aggregates = u32::try_from(manifest.versions.len()).context("too many aggregates")?;
        Ok(Self {
            topic,
            reader: topic.reader(&manifest.from)?,
            auditor: RunAuditor::new(manifest.run, aggregates, manifest.payload_bytes),
            stamps: None,
        })
    }

    /// The judgement on what was read so far.
    pub(crate) fn verdict(&self, manifest: &Manifest) -> Verdict {
        self.auditor.verdict(&manifest.versions)
    }

    /// Reads on until all events were seen or nothing new came for a while.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub(crate) fn read_until_complete(&mut self, events: u64) -> Result<()> {
        let (mut delivered, mut last_growth) = (0, Instant::now());
        loop {
            self.read_to_end()?;
            if self.auditor.delivered() > delivered {
                (delivered, last_growth) = (self.auditor.delivered(), Instant::now());
            }
            if delivered >= events || last_growth.elapsed() > LATE_LIMIT {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Goes on with a new reader, which has no old signs of the end.
    ///
    /// # Errors
    /// When no consumer can be made.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        self.reader = self.topic.reader(self.reader.positions())?;
        Ok(())
    }

    /// Reads to the ends that the topic has now.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub(crate) fn read_to_end(&mut self) -> Result<()> {
        let ends = self.topic.ends()?;
        let (auditor, stamps) = (&mut self.auditor, &mut self.stamps);
        self.reader.read_to(&ends, |message| {
            let seen = auditor.observe(message.partition(), message.key(), message.payload());
            if let (Sighting::First(_), Some(stamp)) = (seen, Stamp::of(message)) {
                let (first, last) = stamps.unwrap_or((stamp, stamp));
                *stamps = Some((first.earlier(stamp), last.later(stamp)));
            }
        })
    }
}

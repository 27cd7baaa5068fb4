//! By what an instance works, and what is answered where nothing else can be.
//!
//! Promises, must not, fails: as its parent.

use serde::{Deserialize, Serialize};

/// `/api/v1/config`: by what an instance works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// [`crate::metrics::shape::CONFIG_SCHEMA`].
    pub schema: String,
    /// All settings, without secrets.
    pub settings: Vec<SettingStatus>,
}

/// A setting that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingStatus {
    /// Its flag without dashes.
    pub name: String,
    /// None where it is not set and has no default.
    pub value: Option<String>,
    /// Where it was set.
    pub origin: SettingOrigin,
    /// Which variable, or which file.
    pub from: Option<String>,
}

/// Where a setting was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingOrigin {
    /// On the command line.
    Flag,
    /// In the environment.
    Environment,
    /// In the configuration file.
    File,
    /// Nowhere.
    Default,
}

impl SettingOrigin {
    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// What is answered where nothing else can be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// [`crate::metrics::shape::ERROR_SCHEMA`].
    pub schema: String,
    /// What is wrong.
    pub error: String,
    /// What helps.
    pub remedy: String,
}

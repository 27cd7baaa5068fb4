//! The live view (next commit)
use super::picture::Picture;
use super::terminal::Terminal;
use std::io;
#[derive(Debug)]
pub(super) struct LiveView {
    terminal: Terminal,
}
impl LiveView {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { terminal: Terminal::take()? })
    }
    pub(super) fn show(&mut self, _picture: &Picture) -> io::Result<()> {
        let _ = self.terminal.is_ours();
        Ok(())
    }
    pub(super) fn wants_to_stop(&self) -> io::Result<bool> {
        Ok(false)
    }
}

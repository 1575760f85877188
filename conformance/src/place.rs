//! Where the programs of a server run: on this machine, or in containers. What is known of a server is the same for both.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::container::Containers;
use crate::tools::{Tool, find};

/// An image, and which of a server's programs are run from it where servers run in containers.
#[derive(Debug, Clone, Copy)]
pub struct FromImage {
    /// Its service in compose.yaml.
    pub service: &'static str,
    /// The programs, each with the name that it has in the image.
    pub programs: &'static [(&'static str, &'static str)],
    /// The listener that the service's test of its health asks; the test sees its port as `MOONWIRE_PORT`.
    pub health: Option<&'static str>,
}

/// The folder of a server, and where its programs run.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    images: &'static [FromImage],
    containers: Option<Containers>,
}

impl Place {
    /// The programs run on this machine, except those in `images` where there are `containers`.
    pub fn new(folder: &Path, images: &'static [FromImage], containers: Option<Containers>) -> Self {
        Self { folder: folder.to_owned(), images, containers }
    }

    /// Where everything of the server is; its programs know it by this name wherever they run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The command that runs a program of the server; arguments are added to it.
    pub fn command(&self, tool: Tool) -> Command {
        self.command_with(tool, &[])
    }

    /// The same with variables, which must not be added to the command: a container would not see them.
    pub fn command_with(&self, tool: Tool, environment: &[(&str, &OsStr)]) -> Command {
        match self.container_of(tool) {
            Some((containers, service, program)) => containers.run(service, program, environment),
            None => native(tool.program, environment),
        }
    }

    /// The command that runs another program, which every system has, where `tool` runs.
    pub fn beside(&self, tool: Tool, program: &str) -> Command {
        match self.container_of(tool) {
            Some((containers, service, _)) => containers.run(service, program, &[]),
            None => native(program, &[]),
        }
    }

    /// The command that runs `program` beside the `tool` that runs already: in its very container, where it is in one.
    pub fn inside(&self, tool: Tool, program: &str, environment: &[(&str, &OsStr)]) -> Command {
        match self.container_of(tool) {
            Some((containers, service, _)) => containers.exec(service, program, environment),
            None => native(program, environment),
        }
    }

    /// Programs from now on are the server itself, no longer what prepares it.
    pub fn begin(&self) {
        if let Some(containers) = &self.containers {
            containers.begin();
        }
    }

    /// How a program is called where it runs: a script that is run by `beside` may need to know.
    pub fn program(&self, tool: Tool) -> PathBuf {
        match self.container_of(tool) {
            Some((_, _, program)) => program.into(),
            None => find(tool.program).unwrap_or_else(|| tool.program.into()),
        }
    }

    /// In words: "native", or the engine and the images.
    pub fn way(&self) -> String {
        let Some(containers) = &self.containers else { return "native".to_owned() };
        let images: Vec<String> = containers.images().values().map(crate::container::Image::described).collect();
        format!("{} with {}", containers.engine(), images.join(", "))
    }

    /// The tests of health that apply: the listener that each asks, and the command given that listener's port.
    pub fn health_tests(&self) -> Vec<(&'static str, impl Fn(u16) -> Command)> {
        let Some(containers) = &self.containers else { return Vec::new() };
        let images = self.images.iter();
        images
            .filter_map(|image| {
                let test = containers.images().get(image.service)?.health.clone();
                let (program, arguments) = test.split_first().map(|(first, rest)| (first.clone(), rest.to_vec()))?;
                let command = move |port: u16| {
                    let port = port.to_string();
                    let mut command = containers.exec(image.service, &program, &[("MOONWIRE_PORT", port.as_ref())]);
                    command.args(&arguments);
                    command
                };
                Some((image.health?, command))
            })
            .collect()
    }

    /// Whether a tool runs in a container.
    pub fn is_contained(&self, tool: Tool) -> bool {
        self.container_of(tool).is_some()
    }

    fn container_of(&self, tool: Tool) -> Option<(&Containers, &'static str, &'static str)> {
        let (image, program) = image_of(self.images, tool)?;
        Some((self.containers.as_ref()?, image.service, program))
    }
}

/// The image that has a tool, and how it is called there.
pub fn image_of(images: &'static [FromImage], tool: Tool) -> Option<(&'static FromImage, &'static str)> {
    images.iter().find_map(|image| {
        let (_, program) = image.programs.iter().find(|(program, _)| *program == tool.program)?;
        Some((image, *program))
    })
}

fn native(program: &str, environment: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.envs(environment.iter().copied());
    command
}

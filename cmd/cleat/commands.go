package main

// commands lists every command, in the order of the overview.
func commands() []command {
	return []command{
		runCommand(), execCommand(), attachCommand(),
		psCommand(), inspectCommand(), logsCommand(), statsCommand(), eventsCommand(),
		waitCommand(), killCommand(), stopCommand(), pauseCommand(), resumeCommand(), rmCommand(),
		pullCommand(), pushCommand(), commitCommand(),
		imageImportCommand(), imageExportCommand(), imageLsCommand(), imageInspectCommand(), imageTagCommand(), imageConvertCommand(),
		imageMountCommand(), imageUnmountCommand(), imageUsageCommand(), imageLabelCommand(), imageReferrersCommand(), imageRmCommand(), imagePruneCommand(),
		namespaceLsCommand(), namespaceCreateCommand(), namespaceRmCommand(),
		gcCommand(), whyCommand(), shimLsCommand(), doctorCommand(), versionCommand(),
	}
}

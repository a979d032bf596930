package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildInfo tells which program this is.
type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func (a *app) versionCommand() *cobra.Command {
	var output *string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Example: `  credresolve version
  credresolve version --output json`,
		Args: exactly(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			b := readBuildInfo()
			if *output == outputJSON {
				return a.writeJSON(b)
			}
			line := "credresolve " + b.Version
			if b.Revision != "" {
				line += " " + b.Revision
			}
			return a.write(fmt.Appendf(nil, "%s %s %s/%s\n", line, b.Go, b.OS, b.Arch))
		},
	}
	output = outputFlag(cmd)
	return cmd
}

// readBuildInfo reads what the Go command put into the program.
func readBuildInfo() buildInfo {
	b := buildInfo{Version: "(devel)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/server"
)

// serverFlags are the settings that serve and check-config take as flags.
type serverFlags struct {
	config, listen, ledger string
	insecure               bool
}

func (s *serverFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.config, "config", "", "configuration file (GRADEGATE_CONFIG)")
	f.StringVar(&s.listen, "listen", "", "address of the API; port 0 picks a free one")
	f.StringVar(&s.ledger, "ledger", "", "folder of the ledger; put it on another disk")
	f.BoolVar(&s.insecure, "insecure", false, "allow plain HTTP on an address that is not loopback")
}

// flagOf are the settings that have a flag, which comes before all else.
var flagOf = map[string]string{"data": "--data", "listen": "--listen", "ledger.dir": "--ledger", "insecure": "--insecure"}

func (a *app) load(s *serverFlags) (config.Config, config.Origins, error) {
	if s.config == "" {
		s.config = a.getenv("GRADEGATE_CONFIG")
	}
	c, origins, err := config.Load(s.config, a.env)
	set := func(to *string, v, path string) {
		if v != "" {
			*to, origins[path] = v, flagOf[path]
		}
	}
	set(&c.Data, a.data, "data")
	set(&c.Listen, s.listen, "listen")
	set(&c.Ledger.Dir, s.ledger, "ledger.dir")
	if s.insecure {
		c.Insecure, origins["insecure"] = true, flagOf["insecure"]
	}
	if err != nil || c.Data == "" {
		return c, origins, suggested(err)
	}
	// Jobs run in folders of their own, where a relative path means another place.
	c.Data, err = filepath.Abs(c.Data)
	return c, origins, err
}

// suggested adds the key that was probably meant to the refusal of one that
// does not exist.
func suggested(err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err
	}
	typed, _ := f.More["unknown"].(string)
	keys, _ := f.More["keys"].([]string)
	if w := near(typed, keys); w != "" {
		c := *f
		c.Detail = strings.TrimSuffix(c.Detail, ".") + didYouMean(typed, slices.Clone(keys))
		return &c
	}
	return err
}

func (a *app) serve() *cobra.Command {
	var s serverFlags
	c := &cobra.Command{
		Use: "serve", Short: "Run a server; without any configuration it works", Args: cobra.NoArgs,
		Long: `Runs a server. Without configuration it keeps its data in ./gradegate-data,
listens on 127.0.0.1:8080, and prints a one-time code for the first
administrator. It stops on SIGTERM or Ctrl-C; running jobs go on, and the next
start finds them again.`,
		Example: "  gradegate serve\n  gradegate serve --data /var/lib/gradegate --listen 127.0.0.1:0 --ledger /mnt/other/ledger",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := a.load(&s)
			if err != nil {
				return err
			}
			return server.Run(cmd.Context(), cfg, a.stdout, a.stderr)
		},
	}
	s.add(c)
	return c
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "The version of this program", Args: cobra.NoArgs, Example: "  gradegate version",
		RunE: func(*cobra.Command, []string) error {
			v := api.Version{Version: server.Version, Go: runtime.Version()}
			return a.print(result{json: v, name: v.Version, table: func(w io.Writer) { fmt.Fprintf(w, "gradegate %s (%s)\n", v.Version, v.Go) }})
		},
	}
}

// statusCmd is the state of one job, or, without a job, of the server.
func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status [JOB]", Short: "How a job is, or without one: how the server is", Args: cobra.MaximumNArgs(1),
		Long: `With a job: how it is. Without one: how the server is, the verdict first and what
to do next after it. It needs no token, and with --data DIR not even the network.
Exit code 8: nothing answers, or what answers is not fit to serve.`,
		Example: "  gradegate status JOB\n  gradegate status --data gradegate-data",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.showJob(cmd.Context(), args[0])
			}
			return a.serverStatus(cmd.Context())
		},
	}
}

// serverStatus is for three in the morning: it needs no credential, and says
// the verdict first and the next safe command second.
func (a *app) serverStatus(ctx context.Context) error {
	client, err := a.open()
	if err != nil {
		return err
	}
	h, err := client.Health(ctx)
	if err != nil {
		return err
	}
	if err := a.print(result{json: h, name: h.Status, table: func(w io.Writer) { a.health(w, h) }}); err != nil {
		return err
	}
	if h.Status != "ok" && h.Status != "degraded" {
		return exit(exitUnreachable)
	}
	return nil
}

func (a *app) health(w io.Writer, h api.Health) {
	verdict, next := "The server does NOT serve as it should: it is "+h.Status+".", "gradegate audit tail, and the server's log"
	switch h.Status {
	case "ok":
		verdict, next = "The server is well.", ""
	case "degraded":
		verdict, next = "The server serves, and something behind it does not work.", "mend what is named below; nothing needs to be stopped for it"
	}
	fmt.Fprintln(w, verdict)
	if next != "" {
		fmt.Fprintln(w, "next: "+next)
	}
	for _, n := range slices.Sorted(maps.Keys(h.Checks)) {
		fmt.Fprintf(w, "%s\t%s\t%s\n", clean(n), clean(h.Checks[n].Status), clean(h.Checks[n].Detail))
	}
}

package conformance

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// ReportVersion is the version of the form in which a Report is written as JSON.
const ReportVersion = 1

// Report is what a run found: one Result for each case, in the order of Cases.
type Report struct {
	Version int      `json:"version"`
	Results []Result `json:"results"`
}

// Result is the outcome of one case. Its texts hold no secret.
type Result struct {
	Name       string        `json:"name"`
	Rule       string        `json:"rule"`
	Capability string        `json:"capability"`
	Outcome    Outcome       `json:"outcome"`
	Reasons    []string      `json:"reasons,omitempty"` // why it failed, was skipped or is blocked
	Notes      []string      `json:"notes,omitempty"`
	Elapsed    time.Duration `json:"elapsed_ns,omitzero"`
}

// shows names the capability that a case which was skipped would have shown; empty when its reasons name it.
func (r Result) shows() string {
	name := "the capability " + r.Capability
	if r.Capability == "" || slices.ContainsFunc(r.Reasons, func(reason string) bool { return strings.Contains(reason, name) }) {
		return ""
	}
	return "; it would have shown " + name
}

// Outcome is how a case ended.
type Outcome string

// The outcomes.
const (
	Pass    Outcome = "pass"
	Fail    Outcome = "fail"
	Skip    Outcome = "skip"
	Blocked Outcome = "blocked" // a case that it needs has failed
)

// Count gives how many cases ended so.
func (r Report) Count(o Outcome) int {
	n := 0
	for _, x := range r.Results {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// Failed reports whether a case failed.
func (r Report) Failed() bool { return r.Count(Fail) > 0 }

// WriteJSON writes the report for a program to read.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// WriteJUnit writes the report in the form of JUnit, as a suite of that name. What is blocked is skipped there.
func (r Report) WriteJUnit(w io.Writer, name string) error {
	type text struct {
		Text string `xml:",chardata"`
	}
	type testCase struct {
		Class   string `xml:"classname,attr"`
		Name    string `xml:"name,attr"`
		Time    string `xml:"time,attr"`
		Failure *text  `xml:"failure"`
		Skipped *text  `xml:"skipped"`
	}
	type testSuite struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Cases    []testCase `xml:"testcase"`
	}
	s := testSuite{Name: name, Tests: len(r.Results), Failures: r.Count(Fail), Skipped: r.Count(Skip) + r.Count(Blocked)}
	for _, x := range r.Results {
		c := testCase{Class: name, Name: x.Name, Time: fmt.Sprintf("%.3f", x.Elapsed.Seconds())}
		why := &text{"rule: " + x.Rule + "\n" + strings.Join(x.Reasons, "\n")}
		switch x.Outcome {
		case Fail:
			c.Failure = why
		case Skip, Blocked:
			c.Skipped = why
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// WriteTable writes the report for a person to read: a line for each case, and more where it did not pass.
func (r Report) WriteTable(w io.Writer) error {
	width := 0
	for _, x := range r.Results {
		width = max(width, len(x.Name))
	}
	for _, x := range r.Results {
		if _, err := fmt.Fprintf(w, "%-7s  %-*s  %s\n", x.Outcome, width, x.Name, x.Rule); err != nil {
			return err
		}
		for i, reason := range x.Reasons {
			if i == len(x.Reasons)-1 && x.Outcome == Skip {
				reason += x.shows()
			}
			if _, err := fmt.Fprintf(w, "%-7s  %-*s    %s\n", "", width, "", reason); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "%d passed, %d failed, %d skipped, %d blocked\n", r.Count(Pass), r.Count(Fail), r.Count(Skip), r.Count(Blocked))
	return err
}

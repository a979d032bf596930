package secretref

import "errors"

// FindInJSON follows a pointer into a JSON text, as a file provider does.
func FindInJSON(text []byte, pointer string, c Compat) ([]byte, error) {
	n, missing := (&node{text: trimJSON(text)}).find(pointer, c)
	if n == nil {
		return nil, errors.New(missing)
	}
	return n.text, nil
}

// ReadAnswer reads what a program printed, as an exec provider does.
func ReadAnswer(printed []byte, ids []string, allowText bool) ([]Outcome, error) {
	g := &group{source: Exec, provider: "p", ids: ids}
	answers, err := (&ExecProvider{AllowText: allowText}).read(g, Config{}, printed)
	if err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, len(answers))
	for i, a := range answers {
		outcomes[i] = Outcome{Value: a.value, Err: a.err}
	}
	return outcomes, nil
}

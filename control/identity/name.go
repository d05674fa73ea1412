package identity

// CheckName reports what is wrong with s as the name of a thing (fleet, node,
// PoP, region, project, function, namespace): 1 to 63 of a-z, 0-9 and -, starting with a
// letter or digit and ending with one. what says which in the error.
func CheckName(what, s string) error { panic("not yet") }

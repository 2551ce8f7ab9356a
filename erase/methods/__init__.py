"""The methods: one file each; `registry` finds, describes and builds them."""

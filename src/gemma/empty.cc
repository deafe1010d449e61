// room: gemma

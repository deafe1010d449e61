// Help, man page and completion, all read off the declared command line.
#pragma once

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

namespace lapidary::cli {

// Help in 80 columns, for CLI::App::formatter().
std::shared_ptr<CLI::FormatterBase> help_formatter();

// The whole manual as roff, section 1.
std::string man_page(const CLI::App& app);

// A completion script for "bash", "zsh" or "fish".
std::string completion_script(const CLI::App& app, const std::string& shell);

}  // namespace lapidary::cli

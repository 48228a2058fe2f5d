// An audit for people: an HTML page, or lines for a terminal.
#pragma once

#include <string>
#include <vector>

#include "eval/audit.h"
#include "eval/html_page.h"

namespace edgewise {

struct AuditFacts {
  std::string title;                 // "stories-q4.gguf against stories-f16.gguf"
  std::vector<ReportFact> versions;  // tool, inputs
  std::string command;               // that gives the same figures again
};

// Returns one self-contained page. All text is escaped, invisible characters of answers are spelled
// out.
std::string AuditHtml(const ModelAudit& audit, const AuditFacts& facts);

// Returns the figures and what stands out.
std::string AuditText(const ModelAudit& audit);

// What the audit can and cannot see, in sentences.
std::vector<std::string> AuditLimits();

}  // namespace edgewise
